"""What waits is answered together, and one bad question spoils no other."""

import asyncio
import threading

import pytest

from cderetrieval.errors import InputError
from cderetrieval.serve.batching import Batcher


def test_questions_that_wait_are_one_batch():
    begin, sizes = threading.Event(), []

    def together(kind, questions):
        begin.wait(10)
        return [(kind, question) for question in questions]

    async def main():
        batcher = Batcher(together, sizes.append)
        tasks = [batcher.ask(n % 2, n) for n in range(20)]
        await asyncio.sleep(0.05)
        tasks[7].cancel()
        begin.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        batcher.close()
        return answers

    answers = asyncio.run(main())
    assert isinstance(answers.pop(7), asyncio.CancelledError)
    assert answers == [(n % 2, n) for n in range(20) if n != 7]
    assert max(sizes) >= 9
    assert sum(sizes) in (19, 20)  # the cancelled one is left out, unless its turn had come


def test_a_bad_question_spoils_no_other():
    def together(kind, questions):
        if "bad" in questions:
            raise InputError("bad")
        return questions

    async def main():
        batcher = Batcher(together)
        found = await asyncio.gather(*(batcher.ask(0, q) for q in ("a", "bad", "b")), return_exceptions=True)
        batcher.close()
        with pytest.raises(Exception, match="stopping"):
            await batcher.ask(0, "late")
        return found

    first, error, last = asyncio.run(main())
    assert (first, last) == ("a", "b")
    assert isinstance(error, InputError)
