"""The data of the example: sentences of a sleep diary, to be sorted by what they are about.

They are combined from parts, so that a few lines make enough of them: 4 topics x 12 statements x 8 frames are
384 sentences. Statements of the validation never occur in the training.
"""

from __future__ import annotations

from typing import NamedTuple

TOPICS = ("sleep", "appetite", "mood", "focus")
_STATEMENTS = {
    "sleep": (
        "I lay awake until three",
        "I woke up long before the alarm",
        "the night was over after four hours",
        "I could not fall asleep again",
        "I slept through the whole night",
        "I was tired although I had slept for nine hours",
        "I dozed off on the sofa",
        "my dreams kept waking me",
        "I went to bed early and lay there wide awake",
        "a nap in the afternoon kept me awake at night",
        "I slept badly because of the heat",
        "I got up twice in the night",
    ),
    "appetite": (
        "I skipped breakfast and lunch",
        "nothing tasted of anything",
        "I finished the whole pot of soup",
        "I was hungry an hour after dinner",
        "I had to force myself to eat",
        "the smell of food made me feel sick",
        "I ate sweets all evening",
        "I have lost two kilos without trying",
        "I cooked and then left my plate untouched",
        "I had second helpings at every meal",
        "a piece of toast was all I ate",
        "I woke up hungry and raided the fridge",
    ),
    "mood": (
        "everything felt grey and pointless",
        "I cried without knowing why",
        "I laughed more than I have in weeks",
        "I snapped at everybody",
        "I felt calm and quite content",
        "nothing could cheer me up",
        "I felt guilty about small things",
        "I was sad for most of the day",
        "I looked forward to the weekend",
        "I felt empty when I came home",
        "I was irritable from morning to evening",
        "I felt hopeful for the first time",
    ),
    "focus": (
        "I read the same page four times",
        "I forgot what I wanted to say",
        "my thoughts kept wandering in the meeting",
        "I finished the report in one go",
        "I could not decide what to do first",
        "I lost the thread in every conversation",
        "I worked for three hours without a break",
        "I stared at the screen and got nothing done",
        "I mixed up two appointments",
        "I had to write down every single step",
        "I followed the lecture to the end",
        "a simple form took me an hour",
    ),
}
_FRAMES = (
    "{}.",
    "Yesterday {}.",
    "For the third day in a row {}.",
    "My partner noticed that {}.",
    "{}, and that worries me.",
    "Unlike last week, {}.",
    "{} again.",
    "To be honest, {}.",
)
_HELD_OUT = 3  # statements per topic for the validation


class Sentence(NamedTuple):
    """A sentence and the index of its topic."""

    text: str
    topic: int


def sentences(*, held_out: bool) -> list[Sentence]:
    """Returns the sentences of the validation, or those of the training."""
    found = []
    for topic, name in enumerate(TOPICS):
        statements = _STATEMENTS[name]
        for statement in statements[-_HELD_OUT:] if held_out else statements[:-_HELD_OUT]:
            found += [Sentence(frame.format(statement), topic) for frame in _FRAMES]
    return found
