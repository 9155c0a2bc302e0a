"""The environment that functions see: an allow-list, so that what starts Upon keeps its secrets to itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from upon.store.payloads import Where

USUAL = (
    # the machine and the user
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "HOSTNAME", "TERM", "LANG", "LANGUAGE", "LC_*", "TZ"),
    *("TMPDIR", "TEMP", "TMP", "XDG_*"),
    # the interpreter and its libraries
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_*", "LD_*", "DYLD_*", "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("MPLBACKEND", "MPLCONFIGDIR", "HDF5_*", "NUMBA_*"),
    # how much of the machine a computation may take
    *("OMP_*", "OPENBLAS_*", "MKL_*", "BLIS_*", "VECLIB_*", "NUMEXPR_*", "KMP_*", "GOMP_*", "MALLOC_*"),
    *("CUDA_*", "NVIDIA_*", "HIP_*", "ROCR_*", "ZE_*"),
    # batch systems and environment modules
    *("SLURM_*", "PBS_*", "LSB_*", "SGE_*", "FLUX_*", "MODULEPATH", "LOADEDMODULES", "MODULESHOME", "LMOD_*"),
    # instruments and the network
    *("EPICS_*", "TANGO_HOST", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    # which system this is
    *("UPON_HOME", "UPON_SITE"),
)
"""Names and patterns of what a function sees."""
OURS = "UPON_"
"""What begins so passes only where its name is written in full: a pattern does not let Upon's own secrets out."""


def allowed(environment: Mapping[str, str], more: str = "") -> dict[str, str]:
    """Return what of an environment a function sees.

    Args:
        environment: the manager's.
        more: names and patterns (``BEAMLINE_*``) beside the usual ones, with commas or spaces between them.
    """
    patterns = (*USUAL, *more.replace(",", " ").split())
    return {name: value for name, value in environment.items() if _passes(name, patterns)}


def told(store: Path, limit: int) -> dict[str, str]:
    """Return what a manager adds: where the store is, for its workers and for functions that submit."""
    return {"UPON_STORE": str(store), "UPON_INLINE_LIMIT": str(limit)}


def where(environment: Mapping[str, str]) -> Where:
    """Return what `told` has said."""
    folder, limit = environment.get("UPON_STORE"), environment.get("UPON_INLINE_LIMIT")
    return Where(Path(folder) if folder else None, *([int(limit)] if limit else []))


def _passes(name: str, patterns: tuple[str, ...]) -> bool:
    if name.startswith(OURS):
        return name in patterns
    return any(fnmatchcase(name, pattern) for pattern in patterns)
