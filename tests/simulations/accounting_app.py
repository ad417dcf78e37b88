# SPDX-License-Identifier: Apache-2.0
"""A ClientApp that knows of privacy's price and has nothing to pay yet: it says whether what counts is there."""

import sys

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from common import privacy

app = ClientApp()


@app.query("counts")
def counts(message: Message, context: Context) -> Message:
    """What was imported before anybody asked."""
    assert privacy
    return Message(RecordDict({"loaded": ConfigRecord({"accountant": "dp_accounting" in sys.modules})}), reply_to=message)
