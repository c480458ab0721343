"""A slow line between clients and server."""

import asyncio
import threading

from common.network import find_free_port


class SlowLine:
    """A TCP proxy on loopback that lets `bits_per_second` through towards the server, all connections together."""

    def __init__(self, target_port: int, bits_per_second: float) -> None:
        self.port, self.passed = find_free_port(), 0
        self._target, self._rate = target_port, bits_per_second / 8
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._turn = asyncio.Lock()
        self._loop.create_task(asyncio.start_server(self._connect, "127.0.0.1", self.port))
        self._loop.run_forever()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pass(reader, there[1], slow=True), self._pass(there[0], writer, slow=False))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: bool) -> None:
        try:
            while data := await reader.read(4096):
                if slow:
                    async with self._turn:
                        await asyncio.sleep(len(data) / self._rate)
                    self.passed += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
