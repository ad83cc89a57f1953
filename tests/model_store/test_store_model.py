from __future__ import annotations

import tempfile
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from model_store import Draft, Store, StoreError

MakeDraft = Callable[..., Draft]


class StoreMachine(RuleBasedStateMachine):
    """Publish, promote, roll back and collect in any order, against stacks in memory."""

    aliases = st.sampled_from(["current", "scenery/night"])
    words = st.sampled_from("abcd")

    def __init__(self, make_draft: MakeDraft) -> None:
        super().__init__()
        self.make_draft = make_draft
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(self.folder.name)
        self.ids: dict[str, str] = {}
        self.stacks: dict[str, list[str]] = {}

    def push(self, alias: str, name: str) -> None:
        stack = self.stacks.setdefault(alias, [])
        if stack[-1:] != [name]:
            stack.append(name)

    @rule(word=words, alias=aliases)
    def publish(self, word: str, alias: str) -> None:
        draft = self.make_draft(versions={"word": word})
        files = {"card.md": ("card", word.encode())}
        name = self.store.publish(draft, files, aliases=[alias]).id
        assert self.ids.setdefault(word, name) == name
        self.push(alias, name)

    @precondition(lambda self: self.ids)
    @rule(data=st.data(), alias=aliases)
    def promote(self, data: st.DataObject, alias: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.ids.values())))
        assert self.store.promote(name, alias) == name
        self.push(alias, name)

    @rule(alias=aliases)
    def rollback(self, alias: str) -> None:
        stack = self.stacks.get(alias, [])
        if len(stack) < 2:
            with pytest.raises(StoreError):
                self.store.rollback(alias)
        else:
            stack.pop()
            assert self.store.rollback(alias) == stack[-1]

    @rule()
    def gc(self) -> None:
        needed = {name for stack in self.stacks.values() for name in stack}
        lost = {*self.ids.values()} - needed
        assert set(self.store.gc(keep=100, grace_s=0).retired) == lost
        self.ids = {word: name for word, name in self.ids.items() if name in needed}

    @invariant()
    def agrees(self) -> None:
        assert self.store.ids() == tuple(sorted(self.ids.values()))
        assert self.store.aliases() == {name: stack[-1] for name, stack in self.stacks.items()}
        for alias, stack in self.stacks.items():
            assert [step.id for step in self.store.history(alias)] == stack
            agent, given_up = self.store.load_healthy(alias)
            assert agent.file("card").decode() == agent.manifest.versions["word"]
            assert (agent.id, given_up) == (stack[-1], ())

    def teardown(self) -> None:
        self.folder.cleanup()


def test_any_order_of_writes_agrees_with_a_model(make_draft: MakeDraft) -> None:
    run_state_machine_as_test(
        lambda: StoreMachine(make_draft),  # type: ignore[arg-type]  # a factory will do
        settings=settings(max_examples=25, stateful_step_count=12, deadline=None),
    )
