import segue


async def orders(email: str) -> list[str]:
    "The customer's orders."
    return [f"o-1 of {email}"]


def refund(order: str, usd: float) -> str:
    "Refund an order."
    return f"refunded {usd} for {order}"


@segue.flow
async def support(mail: str) -> str:
    return await segue.generate(
        mail,
        system="You are Acme support.",
        max_turns=20,
        tools=[
            orders,
            segue.tool(refund, effect="at-most-once", approve=lambda order, usd: usd > 100, to="finance"),
        ],
    )


async def finance(engine: segue.Engine) -> None:  # your Slack bot, the console, or `segue answer`
    async for ask in engine.asks(to="finance"):
        await ask.answer(
            segue.Deny("Over the monthly limit; offer store credit.")
        )  # or Approve(), Edit(usd=50)
