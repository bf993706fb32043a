"""Where keys come from: the spellings of the command's `--key`."""

from __future__ import annotations

import os
import subprocess
from typing import List, Optional, Sequence, Union

from ._errors import misuse, of_kind
from ._tierstream import Key

KeySource = Union[Key, str, "os.PathLike[str]"]

#: How long a command may take to print a key, in seconds: a round trip to a service, with its retries.
COMMAND_SECONDS_MAX = 30


def open_keys(source: "KeySource | Sequence[KeySource]", passphrase: Optional[str] = None) -> List[Key]:
    """The keys that `source` names: a `Key`, the path of a key file, "env:NAME" or "cmd:COMMAND", or several of them.

    The first seals what is written, all open what is read.
    """
    if isinstance(source, (Key, str, os.PathLike)):
        return [_open(source, passphrase)]
    keys = [_open(one, passphrase) for one in source]
    if not keys:
        raise misuse("no key was given", "give key='job.key', 'env:NAME' or 'cmd:COMMAND'")
    return keys


def _open(source: KeySource, passphrase: Optional[str]) -> Key:
    if isinstance(source, Key):
        return source
    text = os.fspath(source)
    if not isinstance(text, str):
        raise misuse(f"a key source is text or a path, found {type(source).__name__}")
    if text.startswith("env:"):
        name = text[len("env:") :]
        value = os.environ.get(name)
        if value is None:
            raise of_kind("missing", f"open key failed: the variable {name} is not set", f"export {name} with a key's text")
        return Key.from_text(value, passphrase)
    if text.startswith("cmd:"):
        return Key.from_text(_printed(text[len("cmd:") :]), passphrase)
    if text.startswith("file:"):
        text = text[len("file:") :]
    return Key.from_file(text, passphrase)


def _printed(command: str) -> str:
    # A command may hold a token: errors show its first word alone, and never what it printed.
    first = command.split(" ")[0]
    hint = "run it by hand: it must print the text of a key file and exit with 0"
    try:
        done = subprocess.run(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=COMMAND_SECONDS_MAX,
            text=True,
        )
    except subprocess.TimeoutExpired:
        why = f"`{first} ...` gave no key within {COMMAND_SECONDS_MAX} seconds"
        raise of_kind("retry", f"run the key command failed: {why}", hint) from None
    if done.returncode != 0:
        complaint = "; ".join(line for line in done.stderr.splitlines() if line.strip())[:4096]
        why = f"`{first} ...` failed with exit code {done.returncode}: {complaint}"
        raise of_kind("missing", f"run the key command failed: {why}", hint)
    return done.stdout
