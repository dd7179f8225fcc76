"""The terms on which runs are begun: models that can be had, prices that are known, budgets that are there."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from ..authoring.config import How, configured, said
from ..authoring.flow import Target
from ..core.budget import in_words, owner
from ..model.budget import Account, Limit, Standing
from ..model.mode import Config
from ..model.run import Head
from ..ports.clock import Clock
from ..ports.store import Store
from .calls.budgets import Budgets
from .calls.models import Models

log = logging.getLogger("segue")


class Terms:
    """Those of one engine, whose own options are `config`. `funded`: what waits for money may go on."""

    def __init__(
        self,
        config: Config,
        models: Models,
        budgets: Budgets,
        store: Store,
        clock: Clock,
        funded: Callable[[], None],
    ) -> None:
        self._config, self._models, self._budgets = config, models, budgets
        self._store, self._clock, self._funded = store, clock, funded

    # ------------------------------------------------------------ options
    def of(self, how: How) -> Config:
        """Options as the record that goes with a run. Raises for a model that can't be had, before anything is made."""
        config = configured("a run", how)
        self._check_models(config.over(self._config))
        return config

    def of_target(self, target: Target, own: Config | None) -> Config:
        """What holds for runs of a flow, with what the caller says; raises likewise."""
        config = said(own, target.options, self._config)
        if config is not self._config:
            self._check_models(config)
        elif config.model:
            for model in self._models.named(config.model, config):
                self._models.endpoint(model)
        return config

    def heed(self, head: Head, asked: Config) -> None:
        """Say so where a run that is there was begun with other options than are asked for: they don't hold for it."""
        begun = head.spec.config.over(self._config).instead_of(asked)
        if begun:
            log.warning(
                "run %r stays as it was begun, with %s: other options hold for a new id, a fork, or a resumed run",
                head.id,
                begun,
            )

    def _check_models(self, config: Config) -> None:
        if config.model:
            for model in self._models.named(config.model, config):
                self._check_price(model, config)

    def _check_price(self, model: str, config: Config) -> None:
        endpoint = self._models.endpoint(model)
        limits = () if config.budget is None else (Account("", Limit.of(config.budget)),)
        self._budgets.check(f"{endpoint.provider}:{endpoint.model}", (*config.accounts, *limits))

    # ------------------------------------------------------------ budgets
    async def open(self) -> None:
        """Have the engine's own budgets be there."""
        for account in self._config.accounts:
            await self._raise(account.id, account.limit)

    async def on_budget(self, config: Config, account: str) -> Config:
        """As the record of what is started with it: its budget is an account, which is there from now on."""
        if config.budget is None:
            return config
        await self._raise(account, Limit.of(config.budget))
        return config.opened(account)

    async def on_known(self, config: Config, account: str) -> Config:
        """On that budget too, if it is there."""
        known = await self._store.budgets([account])
        others = tuple(one for one in config.accounts if one.id != account)
        return msgspec.structs.replace(
            config, accounts=(*others, *(Account(one.id, one.limit) for one in known))
        )

    async def _raise(self, account: str, asked: Limit) -> None:
        """Have a budget be there; one that is isn't lowered, which is said."""
        standing = await self.fund(account, asked, raising=True)
        if standing.limit.raised(asked) != asked:
            log.warning(
                "the budget of %s stays as it is, %s: engine.fund(), or `segue resume --budget`, lowers it",
                owner(account),
                in_words(standing),
            )

    async def fund(self, account: str, limit: Limit, *, raising: bool = False) -> Standing:
        """Set a budget; how it stands then. `raising`: it isn't lowered."""
        standing = await self._store.fund(account, limit, raising=raising, now=self._clock.now())
        self._funded()
        return standing
