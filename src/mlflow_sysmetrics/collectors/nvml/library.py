"""Calls NVML, and turns its errors into `NvmlError`, which says whether to retry."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host

Handle: TypeAlias = Any  #: of a device, an event set or a sample; nvidia-ml-py ships no types


class Verdict(Enum):
    """What an error means for a retry."""

    UNSUPPORTED = "unsupported"  #: it fails until the driver changes
    FORBIDDEN = "forbidden"  #: it fails for this user
    LOST = "lost"  #: the handle is no longer valid
    TROUBLE = "trouble"  #: it may succeed later
    UNUSABLE = "unusable"  #: a healthy device answered, but the answer cannot be used; the next one may


class NvmlError(Exception):
    """NVML returned an error.

    Attributes:
        verdict: what it means for a retry.
        code: NVML's number of the error; 0 if it is not one of NVML's.
    """

    def __init__(self, reason: str, verdict: Verdict, code: int = 0) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.code = code


# nvmlReturn_t of nvml.h. By number, since old bindings lack the names of the newer ones.
UNINITIALIZED, NOT_SUPPORTED, NO_PERMISSION, TIMEOUT = 1, 3, 4, 10
_UNSUPPORTED = {
    2: "not supported by this driver",  # invalid argument: an old driver answers so to an unknown request
    NOT_SUPPORTED: "not supported by this device",
    13: "not supported by this driver",  # function not found
    22: "not supported by this device",  # ECC in a virtual GPU
    25: "not supported by this driver",  # argument version mismatch
    26: "not supported by this driver",  # deprecated
}
_LOST = frozenset({UNINITIALIZED, 15, 16, 28})  # GPU is lost, reset required, GPU not found

# What bindings raise that do not match the driver's library, or Python.
_FAULTS_OF_BINDINGS = (AttributeError, TypeError, ValueError, OSError)

_REMEDIES = {
    NO_PERMISSION: "no permission: this user needs to read and write /dev/nvidia*",
    8: "a GPU lacks external power: check its power cables",
    9: "driver not loaded: load it (modprobe nvidia), or start the container with GPUs",
    11: "the driver gets no interrupts from a GPU: check the kernel's log",
    12: "driver not found",
    15: "a GPU is lost: reset it or reboot",
    16: "a GPU needs a reset: nvidia-smi --gpu-reset, or reboot",
    17: "the operating system has blocked the request: give the container access to /dev/nvidiactl",
    18: "driver/library version mismatch: reload the driver or reboot",
}


class Nvml:
    """NVML, initialised in this process.

    It is never shut down: it counts its users per process, and another user may rely on our initialisation.

    Args:
        module: `pynvml`.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        mismatch = getattr(
            module, "NVMLLibraryMismatchError", None
        )  # not a subclass of NVMLError; since 12.535
        self._mismatch = () if mismatch is None else (mismatch,)

    def ask(self, function: str, *arguments: object) -> Any:
        """Returns the answer of an NVML function.

        Raises:
            NvmlError: it returned an error.
        """
        call = getattr(self._module, function, None)
        if call is None:
            raise NvmlError("nvidia-ml-py is too old", Verdict.UNSUPPORTED)
        try:
            return call(*arguments)
        except self._module.NVMLError as error:
            raise refusal(getattr(error, "value", 0), str(error)) from error
        except self._mismatch as error:
            raise refusal(25) from error
        except UnicodeDecodeError as error:  # the driver left garbage in the buffer of a missing name
            raise NvmlError("the answer is not valid text", Verdict.TROUBLE) from error
        except _FAULTS_OF_BINDINGS as error:
            raise NvmlError(f"nvidia-ml-py cannot call {function}", Verdict.TROUBLE) from error

    def constant(self, name: str) -> int | None:
        """Returns a constant of the bindings; None if they are too old to have it."""
        return getattr(self._module, name, None)

    def new(self, structure: str) -> Any:
        """Returns an empty structure of the bindings.

        Raises:
            NvmlError: they are too old to have it.
        """
        kind = getattr(self._module, structure, None)
        if kind is None:
            raise NvmlError("nvidia-ml-py is too old", Verdict.UNSUPPORTED)
        return kind()


def refusal(code: int, text: str = "") -> NvmlError:
    """Returns the error for one of NVML's numbers.

    Args:
        code: nvmlReturn_t.
        text: NVML's message for it.
    """
    if code in _UNSUPPORTED:
        return NvmlError(_UNSUPPORTED[code], Verdict.UNSUPPORTED, code)
    if code == NO_PERMISSION:
        return NvmlError("no permission", Verdict.FORBIDDEN, code)
    verdict = Verdict.LOST if code in _LOST else Verdict.TROUBLE
    return NvmlError(text or f"NVML error {code}", verdict, code)


def start(host: Host) -> Nvml:
    """Returns NVML, loaded and initialised.

    Raises:
        Unavailable: this machine does not have it, or it does not work.
    """
    try:
        module = host.load_nvml()
    except ModuleNotFoundError as error:
        raise Unavailable("nvidia-ml-py is not installed: pip install nvidia-ml-py") from error
    except ImportError as error:
        raise Unavailable("nvidia-ml-py cannot be imported: reinstall it") from error
    nvml = Nvml(module)
    try:
        nvml.ask("nvmlInit")
    except NvmlError as error:
        raise unavailable(error) from error
    return nvml


def unavailable(error: NvmlError) -> Unavailable:
    """Returns why NVML as a whole cannot be used, and what to do about it if known."""
    return Unavailable(f"NVML: {_REMEDIES.get(error.code, str(error))}")
