"""LiteFlow tells what it does through the standard logging, with run, task and attempt on each record; quiet by default."""

from __future__ import annotations

import logging

import pytest

from liteflow import Context, Flow, LiteFlowError, TaskFailedError
from tests.features.children import Child


def test_a_script_that_does_not_ask_for_logs_sees_none(store: str):
    child = Child(
        """
        import sys
        from liteflow import Flow, TaskFailedError

        flow = Flow(store=sys.argv[1])
        flow.add_task("ok", lambda ctx: ctx.logger.warning("from a task"))
        flow.add_task("fail", lambda ctx: 1 / 0)
        flow.run("ok")
        try:
            flow.run("fail")
        except TaskFailedError:
            pass
        flow.recover()
        flow.close()
        """,
        store,
    )

    assert child.end() == 0
    assert (child.lines(), child.errors) == ([], "")


def test_a_record_of_a_task_carries_its_run_its_key_and_the_attempt(flow: Flow, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "liteflow")

    @flow.task("work")
    def work(ctx: Context):
        ctx.logger.info("read %d rows", 7, extra={"rows": 7})

    flow.run("work", run_id="r")

    (record,) = [record for record in caplog.records if record.name == "liteflow.task"]
    assert record.getMessage() == "[r work attempt 1] read 7 rows"
    assert (record.run_id, record.task, record.attempt, record.rows) == ("r", "work", 1, 7)
    assert record.levelno == logging.INFO


def test_a_message_with_a_percent_sign_in_the_names_is_logged_as_it_is(flow: Flow, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "liteflow")
    flow.add_task("100%", lambda ctx: ctx.logger.info("%s of it", "half"))

    flow.run("100%", run_id="50%d")

    assert "[50%d 100% attempt 1] half of it" in [record.getMessage() for record in caplog.records]


def test_an_exception_is_logged_with_its_traceback_if_the_task_asks_for_it(flow: Flow, caplog: pytest.LogCaptureFixture):
    @flow.task("work")
    def work(ctx: Context):
        try:
            1 / 0  # noqa: B018 - raises
        except ZeroDivisionError:
            ctx.logger.exception("went wrong")

    flow.run("work")

    assert "ZeroDivisionError" in caplog.text


def test_the_logger_is_there_in_a_task_only(flow: Flow):
    with pytest.raises(LiteFlowError, match="inside a task only"):
        _ = flow.context.logger


def test_loggers_of_ours_add_no_handler_that_prints(flow: Flow):
    flow.add_task("work", lambda ctx: None)
    flow.run("work")

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "liteflow"]
    handlers = [handler for name in names for handler in logging.getLogger(name).handlers]

    assert all(isinstance(handler, logging.NullHandler) for handler in handlers)
    assert all(logging.getLogger(name).level == logging.NOTSET for name in names)


def test_a_failed_run_is_raised_and_not_logged_as_an_error_of_ours(flow: Flow, caplog: pytest.LogCaptureFixture):
    flow.add_task("fail", lambda ctx: 1 / 0)

    with pytest.raises(TaskFailedError):
        flow.run("fail")

    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
