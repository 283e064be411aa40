"""The errors of triage, as leaves of the tree in core/errors.py."""

from apps.core.errors import Conflict, NotFound, RedriveError


class LetterNotFound(NotFound):
    default_message = "There is no such dead letter."


class LetterIsDecided(Conflict):
    default_message = "Somebody has decided on this dead letter already."


class GroupNotFound(NotFound):
    default_message = "There is no such failure group."


class GroupHasMoved(Conflict):
    """Of a group whose state does not allow what is asked, mostly because somebody else was quicker."""

    default_message = "The failure group is not in a state that allows it."


class OperationNotFound(NotFound):
    default_message = "There is no such bulk operation."


class OperationHasMoved(Conflict):
    """Of an operation whose state does not allow what is asked."""

    default_message = "The bulk operation is not in a state that allows it."


class GroupIsTaken(Conflict):
    """Another bulk operation works on the group."""

    default_message = "Another bulk operation works on this failure group."


class PayloadHasChanged(Conflict):
    """Somebody else has edited the payload meanwhile."""

    default_message = "The payload was edited by somebody else meanwhile. Load the page again."


class AlertNotFound(NotFound):
    default_message = "There is no such alert."


class AlertHasMoved(Conflict):
    default_message = "This alert is acknowledged, or has ended, already."


class RuleNotFound(NotFound):
    default_message = "There is no such alert rule."


class ChannelNotFound(NotFound):
    default_message = "There is no such alert channel."


class ChannelFailed(RedriveError):
    """A channel did not take what was sent: it is tried again until the delays are used up."""

    code, status, retryable = "alert_not_sent", 502, True
    default_message = "The alert could not be sent."
