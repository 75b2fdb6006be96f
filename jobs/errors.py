"""What can go wrong with jobs."""

from __future__ import annotations

from hyprbox.lib.errors import Conflict, HyprBoxError, NotFound


class UnknownJob(NotFound):
    """There is no job with that id."""


class JobNotCancellable(Conflict):
    """This job has already finished."""


class NodeInContact(Conflict):
    """This job's agent is in contact. Cancel it without force; give it up when it has not ended a minute after that."""


class JobNotFinished(Conflict):
    """This job has not finished yet: cancel it first, or wait."""


class JobKeyUnknown(Conflict):
    """This job was signed with a key that is not known any more, so it cannot be repeated: run its preset anew."""


class NodeRemoved(Conflict):
    """This job's node was removed; a node that has its name now is another one."""


class JobFinished(Conflict):
    """This job has already finished."""


class StaleClaim(Conflict):
    """This claim is not the one that holds the job."""


class JobNotStarted(Conflict):
    """This claim was not started yet."""


class CompletionDiffers(Conflict):
    """This job was completed with another result."""


class OutputConflict(Conflict):
    """Other bytes are stored at this offset."""


class MissingOutput(Conflict):
    """The end of the output is not stored yet: send it first."""


class OutputGap(HyprBoxError):
    """The bytes before this offset are not stored: send them first."""

    status = 416


class RangeNotSatisfiable(HyprBoxError):
    """The requested range begins past the end of the output."""

    status = 416


class KeyReused(HyprBoxError):
    """This Idempotency-Key was used for another request."""

    status = 422


class UnknownPin(NotFound):
    """There is no pin with that id."""


class PinExists(Conflict):
    """This preset is pinned there with the same values already."""


class PinMatchesNothing(Conflict):
    """No node of this pin ever reported, so there is nothing to check."""


class UnknownBatch(NotFound):
    """There is no batch with that id."""


class BatchOver(Conflict):
    """Every job of this batch has ended already."""


class NothingToRetry(Conflict):
    """No job of this batch has failed without having been retried."""
