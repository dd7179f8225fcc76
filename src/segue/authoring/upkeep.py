"""Keeping a conversation below its model's window, as a policy says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from ..core.codec import digest, encode
from ..core.upkeep import HEADING, drops, fixed_tokens, is_summary, tokens_of, transcript
from ..model.chat import ChatRequest, Message
from ..model.errors import UnknownName
from ..model.upkeep import Summarise, Upkeep
from .context import Branch, Work

#: Below so many tokens nobody has to know a window.
SMALL = 1000


class Keeper:
    """Keeps one conversation. `ask` has a model answer a text under a system message."""

    def __init__(
        self,
        policy: Upkeep,
        branch: Branch,
        model: str,
        request: ChatRequest,
        ask: Callable[[str, str], Awaitable[str]],
    ) -> None:
        self.policy, self._branch, self._model, self._ask = policy, branch, model, ask
        self._fixed = fixed_tokens(request)
        self._most_out = request.max_tokens or 0
        self._window = policy.window

    async def kept(self, messages: list[Message], pinned: list[Message]) -> list[Message]:
        """The messages that are sent; the list itself where all are. `pinned` ones, of the list, stay."""
        size = self._fixed + sum(map(tokens_of, messages))
        if size <= SMALL and not self._window:
            return messages
        window = self._window = self._window or await self._known_window()
        policy = self.policy
        most = min(int(window * policy.at), window - self._most_out)
        if size <= most:
            return messages
        room = 2 * policy.words if isinstance(policy, Summarise) else 0
        keep = max(0, int(most * policy.keep / policy.at) - room)
        held = {id(message) for message in pinned}
        places = [number for number, message in enumerate(messages) if id(message) in held]
        groups = drops(messages, places, self._fixed, most, keep)
        if not groups:
            return messages
        gone = {number for group in groups for number in group}
        left = [message for number, message in enumerate(messages) if number not in gone]
        if not isinstance(policy, Summarise):
            return left
        summary = ""
        for group in groups:
            summary = await self._summary(policy, summary, [messages[number] for number in group])
        first = next((n for n, message in enumerate(left) if message.role != "system"), len(left))
        return [*left[:first], Message("user", HEADING + summary), *left[first:]]

    async def _summary(self, policy: Summarise, before: str, messages: list[Message]) -> str:
        parts = [f"Write at most {policy.words} words. The conversation:"]
        if before:
            parts.append(HEADING + before)
        parts += [
            str(message.content) if is_summary(message) else transcript([message]) for message in messages
        ]
        return await self._ask(policy.prompt, "\n\n".join(parts))

    async def _known_window(self) -> int:
        """A recorded call, so that a newer list of models changes no run that is under way."""

        async def look_up() -> bytes:
            from ..providers.windows import window

            found = window(self._model)
            if found is None:
                raise UnknownName(
                    "context window",
                    self._model,
                    "say how many tokens it has: upkeep=segue.Trim(window=128_000)",
                )
            return msgspec.json.encode(found)

        args = encode({"model": self._model}, where="a model's name")
        call = Work(kind="window", name="window", args=args, digest=digest(args), decode=_window, run=look_up)
        found: int = await self._branch.run.perform(self._branch, call)
        return found


_window = msgspec.json.Decoder(int).decode
