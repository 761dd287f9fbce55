"""Study page of the dashboard: optuna-dashboard's own answer, with our graphs, our note, and quickly.

optuna-dashboard turns every trial into JSON again for each browser that opens the page, and the page draws a line for
each trial's epochs: at 5,000 trials both together take most of a minute. Trials that have ended do not change, so their
JSON is kept here, and the lines become one graph.
"""

import json
import logging
import re
from collections.abc import Iterable
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from igkd_hpo.dashboard.graphs import Graph, study_graphs
from igkd_hpo.dashboard.summary import live_summary
from igkd_hpo.dashboard.wsgi import answer_json, buffer_response
from igkd_hpo.errors import StudyUnusable, UsageError
from igkd_hpo.escaping import code, markdown
from igkd_hpo.search.storage import SharedStorage
from igkd_hpo.search.study import SearchStudy

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MOST_CURVES = 300
"""Trials up to which the page draws its own line for each trial: 5,000 keep a browser busy for half a minute."""

_log = logging.getLogger(__name__)
_ROUTE, _AFTER = re.compile(r"/api/studies/(\d+)/*"), re.compile(r"(?:after=(\d{1,9}))?")
_ENDED = ("Complete", "Pruned", "Fail")


class _EndedTrials:
    """Cache of the JSON of a study's first trials that have ended, valid until something that it was made of changes.

    A note or an artifact of such a trial can still be edited where a dashboard may write; both are among the study's
    system attributes, so these are part of the key.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.key: object = None
        self.texts: list[str] = []

    def extend(self, trials: list[dict[str, Any]]) -> None:
        """Keep the leading trials that have ended; the first of them follows the last one kept."""
        for trial in trials:
            if trial["state"] not in _ENDED:
                return
            self.texts.append(json.dumps(trial))


class StudyPage:
    """Middleware that makes the answers for one study, and passes on all else.

    Args:
        page: optuna-dashboard.
        storage: the same that it reads.
        annotate: show the summary above the study's note; not where people edit it, since they would save both.
    """

    def __init__(self, page: "WSGIApplication", storage: SharedStorage, *, annotate: bool) -> None:
        self._page, self._storage, self._annotate = page, storage, annotate
        self._kept: dict[int, _EndedTrials] = {}
        self._lock = Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        route = _ROUTE.fullmatch(environ.get("PATH_INFO", ""))
        after = _AFTER.fullmatch(environ.get("QUERY_STRING", ""))
        if environ["REQUEST_METHOD"] != "GET" or route is None or after is None:  # not what the page asks
            return self._page(environ, start_response)
        return self._study(int(route[1]), int(after[1] or 0), environ, start_response)

    def _study(
        self, study_id: int, after: int, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        try:
            key = (
                self._storage.get_study_name_from_id(study_id),
                self._storage.get_study_user_attrs(study_id).get("launched"),
                self._storage.get_study_system_attrs(study_id),
            )
        except KeyError:
            return self._page(environ, start_response)  # says that there is no such study
        with self._lock:
            kept = self._kept.setdefault(study_id, _EndedTrials())
        with kept.lock:  # two browsers at once: the second takes what the first has made
            if kept.key != key:
                kept.key, kept.texts = key, []
            n_kept = len(kept.texts)
            status, headers, body = buffer_response(self._page, environ | {"QUERY_STRING": f"after={n_kept}"})
            if not status.startswith("200"):
                start_response(status, headers)
                return [body]
            detail = json.loads(body)
            kept.extend(detail["trials"])
            later = [json.dumps(trial) for trial in detail["trials"][len(kept.texts) - n_kept :]]
            texts = [*kept.texts, *later][after:]
        self._add(study_id, detail, n_trials=after + len(texts))
        del detail["trials"]
        answer = f'{json.dumps(detail)[:-1]}, "trials": [{", ".join(texts)}]}}'
        return answer_json(answer.encode(), environ, start_response)

    def _add(self, study_id: int, detail: dict[str, Any], *, n_trials: int) -> None:
        """Add our graphs before other people's, and the summary above the note; neither to a study of another tool."""
        try:
            study = SearchStudy(self._storage, self._storage.get_study_name_from_id(study_id))
        except StudyUnusable as error:
            if self._annotate:
                detail["note"]["body"] = f"{markdown(str(error))}\n\n---\n\n{detail['note']['body']}"
            return
        except UsageError:
            return
        # One line of JSON, which would make the page three times as wide as the screen; the note says it in words.
        detail["user_attrs"] = [one for one in detail["user_attrs"] if one["key"] != "study_file"]
        detail["has_intermediate_values"] &= n_trials <= MOST_CURVES
        graphs: dict[str, Graph]
        try:
            trials, now = study.trials(), datetime.now()  # noqa: DTZ005 - Optuna's are naive
            graphs = study_graphs(study, trials, now=now, curves=not detail["has_intermediate_values"])
            summary = live_summary(study, trials)
        except Exception as error:  # what another version wrote must not take the trials away from the reader
            _log.warning("the graphs of study %s cannot be made: %s", study.name, error)
            graphs, summary = (
                {},
                f"The summary and the graphs cannot be made: {code(f'{type(error).__name__}: {error}')}\n\n---\n\n",
            )
        detail["plotly_graph_objects"][:0] = [
            {"id": name, "graph_object": json.dumps(graph)} for name, graph in graphs.items()
        ]
        if self._annotate:
            detail["note"]["body"] = summary + detail["note"]["body"]
