"""The functions to ask a nameserver; to be one, see `posttroll.ns`."""

from posttroll.asyncio.lookup import get_pub_address, get_pub_addresses

__all__ = ["get_pub_address", "get_pub_addresses"]
