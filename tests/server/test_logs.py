"""Lines of the log, in a process of their own: `configure` changes the loggers of a whole process."""

import json
import subprocess
import sys

PROGRAM = """
import logging, warnings
from tars_rewards.server.logs import configure, log
configure()
log(logging.INFO, "an event", number=1)
log(logging.INFO, "a failure", error=ValueError("so"))
logging.getLogger("uvicorn.error").info("not shown")
logging.getLogger("uvicorn.error").error("shown")
warnings.warn("careful\\nindeed")
"""


def test_events_servers_errors_and_warnings_are_lines_of_json():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in lines] == ["info", "info", "error", "warning"]
    assert (lines[0]["event"], lines[0]["number"]) == ("an event", 1)
    assert "ValueError: so" in lines[1]["traceback"]
    assert lines[2]["event"] == "shown"
    assert "careful\nindeed" in lines[3]["event"]
