"""Do everything at once in one event loop until it is told to end, or ``drop`` it all: ``loop.py WAY DIRECTORY``."""

import asyncio
import sys
from contextlib import AsyncExitStack, suppress

from posttroll.asyncio import (
    ListenerContainer,
    Messenger,
    Publish,
    RpcClient,
    RpcServer,
    Subscribe,
    create_subscriber_from_dict_config,
)
from posttroll.message import Message

way, directory = sys.argv[1:]
local = {"nameservers": ["localhost"]}


async def increase(number: int) -> int:
    return number + 1


async def main() -> None:
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(Publish("counter", journal=f"{directory}/counter", **local))
        options = {"durable": "archive", "start_at": "first", "timeout": 2}
        subscriber = await stack.enter_async_context(Subscribe("counter", "/counter", **options))
        container = await stack.enter_async_context(ListenerContainer("/counter", services="counter"))
        alice = await stack.enter_async_context(Messenger("alice", journal=f"{directory}/alice", **local))
        bob = await stack.enter_async_context(Messenger("bob", listen=False, **local))
        server = await stack.enter_async_context(RpcServer(alice))
        client = await stack.enter_async_context(RpcClient(bob))
        server.register_function(increase, "increase")

        async def publish() -> None:
            number = 0
            while True:
                await publisher.send(Message("/counter", "info", {"number": number}))
                number = await client.proxy("alice").increase(number)

        async def receive(messages: object) -> None:
            async for message in messages:
                if message.data["number"] == 20:
                    print("ready", flush=True)

        if way == "drop":
            settings = {"services": "counter", "topics": "/counter", "addr_listener": True}
            stack.pop_all()
            dropped = await create_subscriber_from_dict_config(settings)
            await publisher.send(Message("/counter", "info", {"number": 0}))
            print("ready", dropped.running, flush=True)
            return
        async with asyncio.TaskGroup() as tasks:
            for task in (publish(), receive(subscriber), receive(container), alice.run()):
                tasks.create_task(task)


with suppress(KeyboardInterrupt):
    asyncio.run(main())
print("ended", flush=True)
