"""What `manage.py up` prints on standard output. Pure: facts in, text out."""

import json
import textwrap

from gateway.first_run import SetUp

WIDTH = 78
FIRST_QUESTION = "Say hello in five words."


def welcome(url: str, done: SetUp, model_name: str, drain_s: float, runs: str) -> str:
    """Everything an operator needs now; the password and the API key only in the run that made them.

    `runs` says which processes there are.
    """
    parts = ["Penstock is at your service.", _facts(url, done, runs)]
    if not done.changed:
        parts.append(_indented("Set-up was done before; nothing was changed."))
    parts += [_indented(each) for each in done.sentences]
    if done.api_key:
        parts += ["Your first call; its API key is shown only now:", curl(url, done.api_key, model_name)]
    parts.append(f"Ctrl-C stops the gateway; open streams get up to {drain_s:g} s to end.")
    return "\n" + "\n\n".join(parts) + "\n"


def curl(url: str, api_key: str, model_name: str) -> str:
    """A command to paste into a shell."""
    body = json.dumps({"model": model_name, "messages": [{"role": "user", "content": FIRST_QUESTION}]})
    return (
        f"curl {url}/v1/chat/completions \\\n"
        f'  -H "Authorization: Bearer {api_key}" \\\n'
        f'  -H "Content-Type: application/json" \\\n'
        f"  -d '{_in_single_quotes(body)}'"
    )


def _in_single_quotes(text: str) -> str:
    return text.replace("'", "'\\''")


def _facts(url: str, done: SetUp, runs: str) -> str:
    lines = [f"  Live page  {url}/"]
    if done.administrator:
        password = (
            done.administrator.password if done.administrator.generated else "as in PENSTOCK_ADMIN_PASSWORD"
        )
        once = "   (shown only now)" if done.administrator.generated else ""
        lines += [f"  Sign in    {done.administrator.email}", f"  Password   {password}{once}"]
    elif done.sign_in:
        lost = f"`.venv/bin/python manage.py changepassword {done.sign_in}` if it is lost"
        lines += [f"  Sign in    {done.sign_in}", f"  Password   {lost}"]
    lines.append(f"  Runs       {runs}")
    return "\n".join(lines)


def _indented(sentence: str) -> str:
    return textwrap.fill(
        sentence,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
