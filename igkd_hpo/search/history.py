"""Read trials in bulk: the same trials as Optuna reads, from plain rows instead of mapped objects.

Every process that opens a study begins with its whole history. At 5,000 trials of 20 epochs Optuna takes 6.7 s of a
core for that, because it makes an object of each of 200,000 rows before it makes the trials; plain rows take 1.1 s.
"""

import json
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from typing import Any

from optuna.distributions import json_to_distribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, insert, or_, select

from igkd_hpo.errors import StudyUnusable
from igkd_hpo.search.damage import spoil
from igkd_hpo.search.optuna_internals import ENDED, NOT_FOUND, FrozenStudy, PlainStorage, models


def _table(model: Any) -> Table:
    """Return a model's table: to read by the model's attributes lets each process first put all models together."""
    table = model.__table__
    assert isinstance(table, Table)
    return table


_VALUE_MODEL, _EPOCH_MODEL = models.TrialValueModel, models.TrialIntermediateValueModel
_STUDY, _DIRECTION = _table(models.StudyModel), _table(models.StudyDirectionModel)
_STUDY_USER, _STUDY_SYSTEM = _table(models.StudyUserAttributeModel), _table(models.StudySystemAttributeModel)
_TRIAL, _VALUE, _PARAM = _table(models.TrialModel), _table(_VALUE_MODEL), _table(models.TrialParamModel)
_EPOCH, _USER = _table(_EPOCH_MODEL), _table(models.TrialUserAttributeModel)
_SYSTEM = _table(models.TrialSystemAttributeModel)
_COLUMNS: dict[Table, tuple[str, ...]] = {
    _VALUE: ("objective", "value", "value_type"),
    _PARAM: ("param_name", "param_value", "distribution_json"),
    _EPOCH: ("step", "intermediate_value", "intermediate_value_type"),
    _USER: ("key", "value_json"),
    _SYSTEM: ("key", "value_json"),
}
_PARTS = tuple(_COLUMNS)
_MOST_IN_ONE_STATEMENT = 5000  # of the 32,766 parameters that SQLite takes
_distribution = lru_cache(maxsize=1024)(json_to_distribution)  # a study has a few, and each of its trials repeats them


class HistoryStorage(PlainStorage):
    """Optuna's storage on a database, reading trials from plain rows."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Return a study's trials by id: those above `trial_id_greater_than`, and the included earlier ones.

        Raises KeyError where there is no such study.
        """
        with self._statements() as connection:
            _check_study(connection, study_id)
            if trial_id_greater_than == -1:
                return _ALL_TRIALS.read(connection, states, study=study_id)
            again = [trial_id for trial_id in included_trial_ids if trial_id <= trial_id_greater_than]
            return _NEW_TRIALS.read(connection, states, study=study_id, last=trial_id_greater_than, some=again)

    def get_study_id_from_name(self, study_name: str) -> int:
        with self._statements() as connection:
            found = connection.scalar(select(_STUDY.c.study_id).where(_STUDY.c.study_name == study_name))
        if found is None:
            raise KeyError(NOT_FOUND)
        return int(found)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        query = select(_DIRECTION.c.direction).where(_DIRECTION.c.study_id == study_id)
        with self._statements() as connection:
            _check_study(connection, study_id)
            return list(connection.scalars(query.order_by(_DIRECTION.c.objective)))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._get_study_attributes(_STUDY_USER, study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._get_study_attributes(_STUDY_SYSTEM, study_id)

    def _get_study_attributes(self, kind: Table, study_id: int) -> dict[str, Any]:
        with self._statements() as connection:
            _check_study(connection, study_id)
            query = select(kind.c.key, kind.c.value_json).where(kind.c.study_id == study_id)
            return {key: _from_json(written) for key, written in connection.execute(query)}

    def get_all_studies(self) -> list[FrozenStudy]:
        study, direction, kinds = _STUDY.c, _DIRECTION.c, (_STUDY_USER.c, _STUDY_SYSTEM.c)
        with self._statements() as connection:
            names = connection.execute(select(study.study_id, study.study_name).order_by(study.study_id)).all()
            given = connection.execute(
                select(direction.study_id, direction.direction).order_by(direction.study_id, direction.objective)
            ).all()
            written = [connection.execute(select(one.study_id, one.key, one.value_json)).all() for one in kinds]
        directions: dict[int, list[Any]] = {study_id: [] for study_id, _ in names}
        attributes: list[dict[int, dict[str, Any]]] = [{study_id: {} for study_id, _ in names} for _ in kinds]
        for study_id, towards in given:
            directions.get(study_id, []).append(towards)
        for of_kind, rows in zip(attributes, written, strict=True):
            for study_id, key, value in rows:
                of_kind.get(study_id, {})[key] = _from_json(value)
        return [
            FrozenStudy(
                study_name=name,
                direction=None,
                directions=directions[study_id],
                user_attrs=attributes[0][study_id],
                system_attrs=attributes[1][study_id],
                study_id=study_id,
            )
            for study_id, name in names
        ]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._get_trial(trial_id, _WHOLE_TRIAL)

    def get_trial_to_judge(self, trial_id: int) -> FrozenTrial:
        # The other tables are half of the statements of a report, and a trial has a report after each epoch.
        return self._get_trial(trial_id, _TRIAL_TO_JUDGE)

    def _get_trial(self, trial_id: int, queries: "_Queries") -> FrozenTrial:
        with self._statements() as connection:
            trials = queries.read(connection, trial=trial_id)
        if not trials:
            raise KeyError(NOT_FOUND)
        return trials[0]

    def get_states(
        self, study_id: int, unfinished: Collection[int], trial_id_greater_than: int
    ) -> dict[int, TrialState]:
        values = {"study": study_id, "last": trial_id_greater_than, "some": list(unfinished)}
        with self._statements() as connection:
            return dict(_fetch(connection, _STATES_SINCE, values))

    def get_unfinished_to_compare(self, study_id: int) -> list[FrozenTrial]:
        with self._statements() as connection:
            return _UNFINISHED_TO_COMPARE.read(connection, study=study_id)

    def get_trials(self, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        size = _MOST_IN_ONE_STATEMENT
        parts = [trial_ids[first : first + size] for first in range(0, len(trial_ids), size)]
        with self._statements() as connection:
            return [trial for part in parts for trial in _SOME_TRIALS.read(connection, some=list(part))]

    def set_trial_user_attrs(self, trial_id: int, attributes: Mapping[str, Any]) -> None:
        if not attributes:
            return
        # By name: to import the other one, with all drivers that it knows, takes a process 0.1 s.
        dialect = import_module(f"sqlalchemy.dialects.{self.engine.dialect.name}")
        rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(attributes[key])} for key in attributes]
        insertion = dialect.insert(_USER).values(rows)
        new = {"value_json": insertion.excluded.value_json}
        with self._statements() as connection:
            connection.execute(
                insertion.on_conflict_do_update(index_elements=[_USER.c.trial_id, _USER.c.key], set_=new)
            )

    def add_intermediate_value(self, trial_id: int, step: int, value: float) -> None:
        stored, kind = _EPOCH_MODEL.intermediate_value_to_stored_repr(value)
        row = {"trial_id": trial_id, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        with self._statements() as connection:
            connection.execute(_NEW_EPOCH, row)

    @contextmanager
    def _statements(self) -> Iterator[Connection]:
        """Join this thread's transaction, if it is in one, else begin one.

        Optuna's sessions put each call between a savepoint and its release: at 2 to 6 statements a call, that counts.
        """
        bind = self.scoped_session.get_bind()
        if isinstance(bind, Connection):
            yield bind
        else:
            with self.engine.begin() as connection:
                yield connection


_THE_STUDY = select(_STUDY.c.study_id).where(_STUDY.c.study_id == bindparam("study"))


def _check_study(connection: Connection, study_id: int) -> None:
    """Raise KeyError where there is no such study."""
    if connection.execute(_THE_STUDY, {"study": study_id}).first() is None:
        raise KeyError(NOT_FOUND)


class _Queries:
    """Statements that read trials from plain rows, built once: to build one takes longer than to run it.

    Args:
        wanted: which trials, by their table.
        parts: what of them.
    """

    def __init__(self, wanted: ColumnElement[bool], parts: Container[Table] = _PARTS) -> None:
        trial = _TRIAL.c
        columns = trial.trial_id, trial.number, trial.state, trial.datetime_start, trial.datetime_complete
        self._trials = select(*columns).where(wanted).order_by(trial.trial_id)
        self._parts = {
            part: select(*(part.c[name] for name in ("trial_id", *names)))
            .join(_TRIAL)
            .where(wanted)
            .order_by(*part.primary_key)
            for part, names in _COLUMNS.items()
            if part in parts
        }

    def read(
        self, connection: Connection, states: Container[TrialState] | None = None, **values: Any
    ) -> list[FrozenTrial]:
        """Return the trials by id, of some states alone; `values` are those of the statements' parameters."""
        # The trials come first: whatever a trial has when it is read as ended is there when its rows are read.
        trials = {
            trial_id: FrozenTrial(
                number=number,
                state=state,
                value=None,
                datetime_start=_local(start),
                datetime_complete=_local(complete),
                params={},
                distributions={},
                user_attrs={},
                system_attrs={},
                intermediate_values={},
                trial_id=trial_id,
            )
            for trial_id, number, state, start, complete in _fetch(connection, self._trials, values)
            if states is None or state in states
        }
        if trials:
            self._fill(connection, trials, values)
        return list(trials.values())

    def _fill(self, connection: Connection, trials: dict[int, FrozenTrial], values: Mapping[str, Any]) -> None:
        def rows(part: Table) -> list[Any]:
            if part not in self._parts:
                return []
            found = _fetch(connection, self._parts[part], values)
            return [row for row in found if row[0] in trials]  # others may have come meanwhile

        damage: dict[int, str] = {}
        for trial_id, objective, value, kind in rows(_VALUE):
            if kind is _VALUE_MODEL.TrialValueType.FINITE and not isinstance(value, float | int):
                damage[trial_id] = f"its value is {value!r}"
                continue
            results = trials[trial_id]._values or []
            results += [0.0] * (objective + 1 - len(results))
            results[objective] = _VALUE_MODEL.stored_repr_to_value(value, kind)
            trials[trial_id]._values = results
        for trial_id, name, value, written in rows(_PARAM):
            trial = trials[trial_id]
            try:
                distribution = _distribution(written)
                trial._params[name] = distribution.to_external_repr(float(value))
                trial._distributions[name] = distribution
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
                damage[trial_id] = f"its parameter {name} cannot be read ({error})"
        for trial_id, step, value, kind in rows(_EPOCH):
            if kind is _EPOCH_MODEL.TrialIntermediateValueType.FINITE and not isinstance(value, float | int):
                damage[trial_id] = f"its value after step {step} is {value!r}"
                continue
            trials[trial_id].intermediate_values[step] = _EPOCH_MODEL.stored_repr_to_intermediate_value(value, kind)
        for trial_id, name, written in rows(_USER):
            trials[trial_id]._user_attrs[name] = _from_json(written)
        for trial_id, name, written in rows(_SYSTEM):
            trials[trial_id]._system_attrs[name] = _from_json(written)
        for trial_id, why in damage.items():
            spoil(trials[trial_id], why)


_WHOLE_TRIAL = _Queries(_TRIAL.c.trial_id == bindparam("trial"))
_TRIAL_TO_JUDGE = _Queries(_TRIAL.c.trial_id == bindparam("trial"), (_EPOCH, _SYSTEM))
_SOME_TRIALS = _Queries(_TRIAL.c.trial_id.in_(bindparam("some", expanding=True)))
_OF_STUDY = _TRIAL.c.study_id == bindparam("study")
_SINCE = or_(_TRIAL.c.trial_id > bindparam("last"), _TRIAL.c.trial_id.in_(bindparam("some", expanding=True)))
_ALL_TRIALS = _Queries(_OF_STUDY)
_NEW_TRIALS = _Queries(_OF_STUDY & _SINCE)
_UNFINISHED_TO_COMPARE = _Queries(_OF_STUDY & _TRIAL.c.state.not_in(ENDED), (_SYSTEM,))
_STATES_SINCE = select(_TRIAL.c.trial_id, _TRIAL.c.state).where(_OF_STUDY, _SINCE)
_NEW_EPOCH = insert(_EPOCH)


def _fetch(connection: Connection, query: Select[Any], values: Mapping[str, Any]) -> Sequence[Any]:
    try:
        return connection.execute(query, values).all()
    except (LookupError, TypeError, ValueError) as error:  # SQLite takes any text for a state or a time
        raise StudyUnusable(f"a row of its trials cannot be read: {error}; restore the database from a copy") from error


def _from_json(written: Any) -> Any:
    """Return what a JSON text says, and any other text as it is: nothing of ours is taken for more than it is."""
    try:
        return json.loads(written)
    except (RecursionError, TypeError, ValueError):
        return str(written)


def _local(time: datetime | None) -> datetime | None:
    """Convert a stored time: Optuna keeps UTC and shows local times, both without a zone."""
    return time and time.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
