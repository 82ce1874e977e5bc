"""Calls NVML, turns its errors into `NvmlError`, and decides when to retry a call that failed.

Which of several calls a device supports is found out by calling. A call that is unsupported or not
permitted is retried every ten minutes: a reloaded driver may support it, and so rare a call costs nothing.
After an unusable answer the call is repeated at the next tick. Other errors back off from one second to
five minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

from mlflow_sysmetrics.errors import Unavailable
from mlflow_sysmetrics.machine.host import Host
from mlflow_sysmetrics.runtime.backoff import doubled

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


Answer = TypeVar("Answer")


# Errors of which the next reading may be free come first: they decide when to ask again.
_SOONEST = (Verdict.TROUBLE, Verdict.UNUSABLE, Verdict.FORBIDDEN, Verdict.UNSUPPORTED)
_FAILURES_TO_CHANGE = 3


class FirstOf(Generic[Answer]):
    """Alternatives for one reading, since drivers and devices of different age support different calls.

    Each is tried whatever the error of those before it, unless the device is gone: under WSL 2 a newer
    version of a call answers "Unknown Error" for ever where the older one works (XuehaiPan/nvitop#30). The
    first that answers is kept, so that a series has one source; one that may answer again is kept until it
    has failed three times in a row.

    Args:
        ways: the calls, best first.
    """

    def __init__(self, *ways: Callable[..., Answer]) -> None:
        self._ways = ways
        self._failures = 0

    def __call__(self, *arguments: object) -> Answer:
        """Returns the answer.

        Raises:
            NvmlError: no alternative answers, or the device is gone.
        """
        errors: list[tuple[str, Verdict, int]] = []  # not the errors, which would keep their frames alive
        for way in self._ways:
            try:
                answer = way(*arguments)
            except NvmlError as error:
                if error.verdict is Verdict.LOST:
                    raise
                errors.append((str(error), error.verdict, error.code))
            else:
                if errors or self._failures:
                    self._change(way, [verdict for _, verdict, _ in errors])
                return answer
        raise NvmlError(*min(errors, key=lambda error: _SOONEST.index(error[1])))

    def _change(self, way: Callable[..., Answer], errors: Sequence[Verdict]) -> None:
        """Puts the call that answered first, once those before it will not answer again."""
        self._failures = self._failures + 1 if errors else 0
        final = all(verdict is Verdict.UNSUPPORTED for verdict in errors)
        if errors and (final or self._failures >= _FAILURES_TO_CHANGE):
            self._failures = 0
            self._ways = (way, *(other for other in self._ways if other is not way))


_UNSUPPORTED_SECONDS = 600.0
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 300.0


class Support:
    """The state of one reading of one device.

    Attributes:
        gap: why it is missing, as a short clause; "" while it succeeds.
        verdict: what the last error meant; None while it succeeds.
    """

    __slots__ = ("_failures", "_rest", "_until", "gap", "verdict")

    def __init__(self) -> None:
        self.gap = ""
        self.verdict: Verdict | None = None
        self._failures = 0
        self._rest = 0.0
        self._until = -math.inf

    def due(self, now: float) -> bool:
        """True if it is time to ask."""
        left = self._until - now
        return left <= 0 or left > self._rest  # left > rest: the clock was set back

    def refused(self, error: NvmlError, now: float) -> None:
        """Records an error."""
        self.gap = str(error)
        self.verdict = error.verdict
        if error.verdict is Verdict.UNUSABLE:
            self._rest = 0.0
            self._failures = 0
        elif error.verdict in (Verdict.UNSUPPORTED, Verdict.FORBIDDEN):
            self._rest = _UNSUPPORTED_SECONDS
        else:
            self._rest = doubled(
                self._failures, first_seconds=_FIRST_SECONDS, longest_seconds=_LONGEST_SECONDS
            )
            self._failures += 1
        self._until = now + self._rest

    def answered(self) -> None:
        """Records an answer."""
        self.gap = ""
        self.verdict = None
        self._failures = 0
        self._until = -math.inf

    def wake(self) -> None:
        """Makes the next attempt due at once, since the device was found again; back-off is not reset."""
        self._until = -math.inf
