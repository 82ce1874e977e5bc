"""CUDA_VISIBLE_DEVICES as CUDA reads it: indices or UUIDs, up to the first entry that is neither.

Source:  CUDA Programming Guide, "CUDA Environment Variables": only what stands before an invalid entry is
         visible ("0,2,-1,1" shows 0 and 2), and an empty value shows nothing. What the guide leaves open is
         read as PyTorch reads it (`torch.cuda._parse_visible_devices`), which must agree with CUDA about the
         number of devices: the first entry decides between indices and UUIDs, an index ends where its digits
         end (" 1" and "1gpu" are 1, by something like strtoul), and what is named twice makes the list empty.
         Only a list of GPUs and of slices, which PyTorch ends where the kind changes, is read to its end:
         since driver 570 CUDA shows both at once (MIG User Guide, "CUDA Device Enumeration").
Doubt:   an entry of which another reader may make something else ("1gpu", "+1", "0x1", an index among UUIDs,
         a UUID after a blank, a slice among GPUs) is reported beside the result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

VARIABLE = "CUDA_VISIBLE_DEVICES"

_UUID_PREFIXES = ("GPU-", "MIG-")
# 18 digits always fit: a longer number is out of every range too, but Python refuses 4301 of them.
_LEADING_INDEX = re.compile(r"\s*([+-]?\d{1,18})", re.ASCII)
_PLAIN_INDEX = re.compile(r"\s*(\d+|-[1-9]\d*)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class CudaList:
    """What the variable names; nothing is said of whether this host has it.

    Attributes:
        indices: in the order of the list; empty where it holds UUIDs.
        uuids: UUIDs and beginnings of UUIDs, in the order of the list.
        doubt: an entry that may be read otherwise, as a clause.
    """

    indices: tuple[int, ...] = ()
    uuids: tuple[str, ...] = ()
    doubt: str | None = None


def read_cuda_list(text: str) -> CudaList:
    """Returns what a value of CUDA_VISIBLE_DEVICES names."""
    return _uuids(text) if text.startswith(_UUID_PREFIXES) else _indices(text)


def names_no_device(environ: Mapping[str, str]) -> bool:
    """Tells whether the variable is set and, beyond doubt, names nothing: the job is to use no GPU."""
    return VARIABLE in environ and read_cuda_list(environ[VARIABLE]) == CudaList()


def _uuids(text: str) -> CudaList:
    uuids: list[str] = []
    doubt = None
    for entry in text.split(","):
        if not entry.startswith(_UUID_PREFIXES):
            meant = entry.lstrip().startswith(_UUID_PREFIXES) or _LEADING_INDEX.match(entry)
            doubt = doubt or (_doubt(entry) if meant else None)
            break
        if entry in uuids:
            return CudaList(doubt=doubt)
        if entry[:4] != text[:4]:
            doubt = doubt or f"{VARIABLE} has GPUs and MIG devices, of which PyTorch counts one kind only"
        uuids.append(entry)
    return CudaList(uuids=tuple(uuids), doubt=doubt)


def _indices(text: str) -> CudaList:
    indices: list[int] = []
    doubt = None
    for entry in text.split(","):
        leading = _LEADING_INDEX.match(entry)
        odd_index = leading and not _PLAIN_INDEX.fullmatch(entry)
        if odd_index or entry.lstrip().startswith(_UUID_PREFIXES):
            doubt = doubt or _doubt(entry)
        index = int(leading[1]) if leading else -1
        if index < 0:
            break
        if index in indices:
            return CudaList(doubt=doubt)
        indices.append(index)
    return CudaList(indices=tuple(indices), doubt=doubt)


def _doubt(entry: str) -> str:
    return f"{VARIABLE} has {entry!r}, which may be read in two ways: write only indices, or only UUIDs"
