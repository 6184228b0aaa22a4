"""Late penalties by nbgrader's plugin interface. In `nbgrader_config.py`:

    c.AssignLatePenalties.plugin_class = "autograder.late.DailyPenalty"
    c.DailyPenalty.per_day = 0.1

`dgm grade` and `nbgrader autograde` both apply it, to submissions with a `timestamp.txt` after the due date that the
gradebook knows.
"""

import math

from nbgrader.plugins import LateSubmissionPlugin
from sqlalchemy.orm import object_session
from traitlets import Float
from traitlets.utils.importstring import import_item


class DailyPenalty(LateSubmissionPlugin):
    """Takes a fraction of the score for every day begun."""

    per_day = Float(0.1, min=0.0, max=1.0, help="fraction of the score for each day begun").tag(config=True)
    most = Float(0.5, min=0.0, max=1.0, help="largest fraction that is taken").tag(config=True)
    grace_minutes = Float(10.0, min=0.0, help="minutes after the due date that cost nothing").tag(config=True)

    def late_submission_penalty(self, student_id, score, total_seconds_late):
        """The points taken from `score`, or None."""
        late = total_seconds_late - 60 * self.grace_minutes
        if late <= 0:
            return None
        return score * min(self.most, self.per_day * math.ceil(late / 86_400))


def penalize(submission, config):
    """Sets the late penalty of a submission as nbgrader's AssignLatePenalties does; the caller commits.

    Args:
        submission: nbgrader's SubmittedAssignment.
        config: the course's configuration.
    """
    kind = config.get("AssignLatePenalties", {}).get("plugin_class", LateSubmissionPlugin)
    kind = import_item(kind) if isinstance(kind, str) else kind
    session = object_session(submission)
    session.flush()
    session.expire_all()  # scores are sums that the database makes
    for notebook in submission.notebooks:
        late = submission.total_seconds_late
        plugin = kind(config=config)
        penalty = plugin.late_submission_penalty(submission.student_id, notebook.score, late) if late > 0 else None
        notebook.late_submission_penalty = None if penalty is None else min(max(penalty, 0.0), notebook.score)
