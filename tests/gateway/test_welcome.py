import json
import shlex

from gateway.first_run import Administrator, SetUp
from gateway.welcome import curl, welcome

URL = "http://localhost:8000"
RUNS = "one worker for calls and pages"


def test_the_command_is_one_that_a_shell_takes_apart_as_meant():
    words = shlex.split(curl(URL, "pst_key", "it's a model name"))

    assert words[:2] == ["curl", f"{URL}/v1/chat/completions"]
    assert "Authorization: Bearer pst_key" in words
    assert json.loads(words[-1])["model"] == "it's a model name"


def test_a_first_run_shows_the_password_and_the_key_once():
    done = SetUp(Administrator("ops@example.com", "made-up", True), "pst_key", ["Answers."], changed=True)
    text = welcome(URL, done, "gpt-4o", 30.0, RUNS)

    assert text.count("made-up") == 1
    assert text.count("pst_key") == 1
    assert f"{URL}/\n" in text
    assert "nothing was changed" not in text
    assert "changepassword" not in text


def test_a_password_of_the_environment_is_not_shown():
    done = SetUp(Administrator("ops@example.com", "chosen", False), "pst_key", changed=True)

    assert "chosen" not in welcome(URL, done, "gpt-4o", 30.0, RUNS)


def test_a_later_run_says_that_nothing_was_changed():
    text = welcome(URL, SetUp(sign_in="ops@example.com"), "gpt-4o", 30.0, RUNS)

    assert "Set-up was done before; nothing was changed." in text
    assert "  Sign in    ops@example.com\n" in text
    assert "`.venv/bin/python manage.py changepassword ops@example.com` if it is lost" in text
    assert "curl" not in text
