"""The type stubs say what the extension module has."""

import ast
import pathlib

import tierstream
from tierstream import _tierstream


def names(members):
    return {name for name in members if not name.startswith("_") or name in ("__dlpack__", "__dlpack_device__")}


def test_stubs_name_all_there_is_and_nothing_else():
    stub = pathlib.Path(tierstream.__file__).with_name("_tierstream.pyi")
    assert stub.with_name("py.typed").exists()
    tree = ast.parse(stub.read_text())
    told = {node.name: node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert set(told) == names(vars(_tierstream))
    for name, node in told.items():
        if isinstance(node, ast.ClassDef):
            members = {member.name for member in node.body if isinstance(member, ast.FunctionDef)}
            assert names(members) == names(vars(getattr(_tierstream, name))), name


def test_all_that_users_call_has_a_docstring():
    for name in tierstream.__all__:
        thing = getattr(tierstream, name)
        if isinstance(thing, str):
            continue
        assert thing.__doc__, name
        for member, value in vars(thing).items() if isinstance(thing, type) else ():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert value.__doc__, f"{name}.{member}"
