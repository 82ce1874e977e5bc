"""Callbacks that record a training with Lightning, Hugging Face, Keras or Ignite; a module for each."""
