"""Errors as they leave the service: every one a `Problem` in JSON with a fitting status code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from upon.api import Problem, problem
from upon.errors import (
    Conflict,
    DeadLetterNotFound,
    FunctionNotFound,
    InputError,
    KafkaError,
    NotAuthenticated,
    PayloadTooLarge,
    RuleNotFound,
    ServiceError,
    ServiceUnavailable,
    SiteNotFound,
    StoreError,
    TaskNotFound,
    UponError,
)
from upon.logs import get_logger
from upon.messages import MAX_RECORD
from upon.service.rest.routing import answer

STATUSES: dict[type[UponError], int] = {
    PayloadTooLarge: 413,
    InputError: 400,
    NotAuthenticated: 401,
    FunctionNotFound: 404,
    SiteNotFound: 404,
    TaskNotFound: 404,
    RuleNotFound: 404,
    DeadLetterNotFound: 404,
    Conflict: 409,
    ServiceUnavailable: 503,
    StoreError: 503,
    KafkaError: 503,
}
"""Error class → status; a class that is not here has its base's, and 500 if none is."""
log = get_logger(__name__)


def status_of(error: UponError) -> int:
    """Return the status code for an error."""
    return next((STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES), 500)


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn whatever a handler raises into a `Problem`."""
    try:
        return await handler(request)
    except UponError as error:
        headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, NotAuthenticated) else {}
        return answer(problem(error), status_of(error), **headers)
    except web.HTTPRequestEntityTooLarge:
        return answer(problem(PayloadTooLarge(f"the body is over the limit of {MAX_RECORD:,} bytes")), 413)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        said = f"{request.method} {request.path}: the methods there are: {allowed}"
        return answer(Problem(error=ServiceError.__name__, message=said), 405, Allow=allowed)
    except web.HTTPNotFound:
        said = f"{request.path} is no path of this API; /openapi.json lists them"
        return answer(Problem(error=ServiceError.__name__, message=said), 404)
    except web.HTTPException as error:
        cls = InputError if error.status < 500 else ServiceError
        return answer(Problem(error=cls.__name__, message=error.text or error.reason), error.status)
    except Exception as error:
        log.exception("a request failed unexpectedly", action="request", method=request.method, path=request.path)
        said = f"the service failed: {type(error).__name__}: {error}; its log has the traceback"
        return answer(Problem(error=ServiceError.__name__, message=said), 500)
