"""What `test_error_catalogue` provokes, what is provoked elsewhere, and what no user can meet."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd
from planted import garch, prices

SYMBOLS = ("ON", "NO", "0700")
HEADER = "symbol,session,close\n"
ROW = "ON,2009-01-02,5.0\n"
SPAN = {"start": "2001-01-01", "end": "2001-03-30", "refit_every": 60}
JOB: dict[str, Any] = {
    "name": "mine",
    "prices": {"kind": "files", "path": "prices.csv", "symbols": list(SYMBOLS)},
    "horizons": [1, 5],
    "lookback": 8,
    "backtest": SPAN,
    "models": [{"kind": "historical"}],
    "workspace": "{folder}/workspace",
    "minimum_coverage": 0.3,
}
NET = {"kind": "convolution", "kernel": 3}
MAIL = {"kind": "email", "sender": "a@b", "recipients": ["c@d"], "host": "h"}


class Said(NamedTuple):
    """What a line must say."""

    rule: str
    value: str
    way_out: str


def table(symbols: tuple[str, ...] = SYMBOLS, sessions: int = 330) -> pd.DataFrame:
    parts = []
    for seed, symbol in enumerate(symbols):
        frame = prices(garch(sessions, seed))
        days = frame.index.strftime("%Y-%m-%d")
        parts.append(pd.DataFrame({"symbol": symbol, "session": days, "close": frame["close"].to_numpy()}))
    return pd.concat(parts, ignore_index=True)


LAST = str(table(("ON",))["session"].max())

# ---------------------------------------------------------------------------- the settings of a job
# What is changed in a job that is sound, or the whole text of the file; and what `forecaster validate` says.

JOBS: list[tuple[dict[str, Any] | str | bytes, Said]] = [
    ("- a", Said("a job is a mapping of settings", "['a']", "mapping")),
    ("name: a\nname: b", Said("stands twice", "'name'", "line 2")),
    ("? [a]\n: b", Said("a key is text", "not valid YAML", "line 1")),
    ("a: [1", Said("not valid YAML", "expected ',' or ']'", "line 1")),
    ("x: *a", Said("not valid YAML", "undefined alias", "line 1")),
    ("a: !!python/name:os.system", Said("not valid YAML", "python/name:os.system", "line 1")),
    (b"\xff\xfe\x00", Said("cannot be read as UTF-8 text", "0xff", "job.yaml")),
    ("[" * 5000, Said("not valid YAML", "recursion", "job.yaml")),
    ({"horizon": [1]}, Said("unknown key", "'horizon'", "did you mean 'horizons'?")),
    ({"backtest": ...}, Said("this setting is required", "backtest", "backtest")),
    ({"models": [{"kind": "rigde"}]}, Said("unknown kind", "'rigde'", "did you mean 'ridge'?")),
    ({"models": [{"lags": 3}]}, Said("a `kind` is required", "{'lags': '3'}", "kind")),
    ({"name": "../up"}, Said("a name has letters, digits", "'../up'", "begins with a letter or a digit")),
    (
        {"name": "a\x1b[31m"},
        Said("a name has letters, digits", "'a\\x1b[31m'", "letters, digits and _.- only"),
    ),
    ({"seed": -1}, Said("should be greater than or equal to 0", "'-1'", "seed")),
    ({"lookback": "many"}, Said("should be a valid integer", "'many'", "lookback")),
    ({"minimum_coverage": float("nan")}, Said("should be a valid number", "'.nan'", "minimum_coverage")),
    ({"variance": "ranges"}, Said("should be 'returns' or 'range'", "'ranges'", "variance")),
    ({"workspace": "a\0b"}, Said("holds no control characters", "'a\\x00b'", "stands on one line")),
    ({"store": "a\nb"}, Said("holds no control characters", "'a\\nb'", "stands on one line")),
    ({"market": "O\x1b[0mN"}, Said("a symbol is printable text", "'O\\x1b[0mN'", "printable")),
    ({"horizons": [5, 1]}, Said("horizons are distinct and increasing", "[5, 1]", "increasing")),
    ({"backtest": {"start": "20010101"}}, Said("a date is written YYYY-MM-DD", "'20010101'", "YYYY-MM-DD")),
    (
        {"backtest": {**SPAN, "end": "1999-01-01"}},
        Said("the end lies after the start", "end 1999-01-01", "after"),
    ),
    (
        {"prices": {"kind": "files", "path": "p", "symbols": ["ON", "ON"]}},
        Said("each symbol is named once", "'ON'", "once"),
    ),
    (
        {"models": [{"kind": "zero"}, {"kind": "zero"}]},
        Said("models have distinct names", "'zero'", "give each a name"),
    ),
    (
        {"models": [{"kind": "zero"}, {"kind": "combination", "members": ["zero", "zero"]}]},
        Said("members are distinct", "['zero', 'zero']", "distinct"),
    ),
    (
        {"models": [{"kind": "zero"}, {"kind": "combination", "members": ["zero", "ridge"]}]},
        Said("members of a combination are models that stand before it", "'ridge'", "(allowed: zero)"),
    ),
    (
        {"models": [{**NET, "strategy": {"kind": "row"}, "kernel": 30}]},
        Said("more than the lookback of ", "span 88 sessions", "look back further or take a smaller kernel"),
    ),
    (
        {"models": [{**NET, "strategy": {"kind": "lagged", "lags": [0, 0]}}]},
        Said("lags are distinct", "['0', '0']", "distinct"),
    ),
    (
        {"models": [{**NET, "strategy": {"kind": "lagged", "lags": [0, 1], "rows": 3}}]},
        Said("give lags or rows, not both", "rows 3", "give lags or rows"),
    ),
    (
        {"models": [{**NET, "strategy": {"kind": "lagged", "lags": [0, 1], "stride": 3}}]},
        Said("a stride goes with rows", "stride 3 without rows", "goes with rows"),
    ),
    (
        {"models": [{**NET, "strategy": {"kind": "row"}, "training": {"devices": 3, "chunks_per_step": 8}}]},
        Said("devices divide the chunks of a step evenly", "3 devices for 8 chunks", "evenly"),
    ),
    ({"engine": {"kind": "dask"}}, Said("needs the address of its cluster", "dask", "name it as `address`")),
    (
        {"engine": {"kind": "loky", "address": "x:1"}},
        Said("an address belongs to a cluster (dask, ray)", "received x:1", "dask, ray"),
    ),
    (
        {"store": "s3://user@bucket/x"},
        Said("the URL of a store holds no credentials or options", "store:", "set them in the environment"),
    ),
    (
        {"ledger": "postgresql://u:p@h/db"},
        Said("the URL of a ledger holds no password", "ledger:", "set PGPASSWORD"),
    ),
    (
        {"alerts": [{"kind": "webhook"}, {"kind": "webhook"}]},
        Said("alerts have distinct names", "'webhook'", "give each a name"),
    ),
    (
        {"alerts": [{"kind": "command", "command": ["a\0b"]}]},
        Said("an argument of a program holds no zero byte", "'a\\x00b'", "no zero byte"),
    ),
    (
        {"alerts": [{**MAIL, "host": "u@h"}]},
        Said("a host is a name or an address", "'u@h'", "without user, port or path"),
    ),
    ({"alerts": [{**MAIL, "sender": "me"}]}, Said("an e-mail address has one @", "'me'", "one @")),
    (
        {"alerts": [{**MAIL, "user": "u", "security": "none"}]},
        Said("a password goes over an encrypted connection", "security: none", "take starttls or tls"),
    ),
    (
        {"alerts": [{"kind": "webhook", "url": "https://u:p@h/x"}]},
        Said("the url of a webhook holds no credentials", "alerts[0]", "set FORECASTER_WEBHOOK_URL"),
    ),
    (
        {"alerts": [{"kind": "webhook", "url": "file:///etc/passwd"}]},
        Said("the url of a webhook is one of http or https", "'file:///etc/passwd'", "http or https"),
    ),
    ({"calendars": {"ONN": "XNYS"}}, Said("calendars: ", "'ONN'", "did you mean 'ON'?")),
    ({"market": "ONN"}, Said("market: ", "'ONN'", "did you mean 'ON'?")),
    ({"covariates": {"ONN": "level"}}, Said("covariates: ", "'ONN'", "did you mean 'ON'?")),
    (
        {"covariates": dict.fromkeys(SYMBOLS, "level")},
        Said("no symbol is left to forecast", "['0700', 'NO', 'ON']", "what is looked at is not forecast"),
    ),
    (
        {"covariates": {"ON": "level"}},
        Said("no model of the job looks at them", "['historical']", "or leave the covariates out"),
    ),
    (
        {"portfolios": {"ON": {"NO": 1.0}}},
        Said("is the name of a symbol; give the portfolio another", "'ON'", "give the portfolio another"),
    ),
    (
        {"portfolios": {"P": {"NO": 0.0}}},
        Said("has at least one member, and no weight is zero", "{'NO': 0.0}", "no weight is zero"),
    ),
    (
        {"portfolios": {"P": {"Q": 1.0}, "Q": {"NO": 1.0}}},
        Said("are symbols, no covariates or portfolios", "'Q'", "are symbols"),
    ),
    (
        {"portfolios": {"P": {"N0": 1.0}}},
        Said("is none of the symbols", "'N0' in 'P'", "did you mean"),
    ),
    (
        {"portfolios": {"P": {"NO": 1.0}}, "variance": "range"},
        Said(
            "the range of a portfolio's prices is not known", "`variance: range`", "take `variance: returns`"
        ),
    ),
]

# ---------------------------------------------------------------------------- the price files
# The bytes of a file (None: there is none), its name, what is changed in the job, and the exit code.

FILES: list[tuple[str | bytes | None, str, dict[str, Any], int, Said]] = [
    (
        None,
        "p.csv",
        {},
        2,
        Said("there is no such file or folder", "p.csv", "relative to the folder of the job"),
    ),
    (None, "p*.csv", {}, 2, Said("matches this pattern", "p*.csv", ".csv, .csv.gz, .parquet")),
    (
        None,
        "~nobody-here/p.csv",
        {},
        2,
        Said("cannot be looked up", "nobody-here", "determine home directory"),
    ),
    ("", "p.csv", {}, 2, Said("a price file needs columns and rows", "empty", "needs columns and rows")),
    (HEADER, "p.csv", {}, 2, Said("a price file needs rows", "no more than a header", "needs rows")),
    (ROW, "p.txt", {}, 2, Said("a price file must end in ", "p.txt", ".csv, .csv.gz, .parquet")),
    (b"\x80" + ROW.encode(), "p.csv", {}, 2, Said("a CSV file must be UTF-8 text", "byte 0x80", "line 1")),
    (HEADER + "O\0N,2009-01-02,5\n", "p.csv", {}, 2, Said("holds a zero byte", "line 2", "save it as text")),
    (HEADER + '"ON,2009', "p.csv", {}, 2, Said("cannot be read: ", "p.csv", "unexpected end of data")),
    (b"PAR1", "p.parquet", {}, 2, Said("cannot be read: ", "p.parquet", "Parquet file size is 4 bytes")),
    (
        "symbol,session\n",
        "p.csv",
        {},
        2,
        Said("a price file needs the columns ", "missing: close", "the file has"),
    ),
    (
        HEADER.replace("close", "Close") + ROW,
        "p.csv",
        {},
        2,
        Said("a price file needs the columns ", "missing: close", "rename 'Close' to 'close'"),
    ),
    (
        HEADER.strip() + ",vol\n" + ROW,
        "p.csv",
        {},
        2,
        Said("unknown columns that look like known ones are refused", "'vol'", "rename 'vol' to 'volume'"),
    ),
    (
        "symbol,close,session,close\n",
        "p.csv",
        {},
        2,
        Said("each column may occur once", "close", "remove or rename the others"),
    ),
    (HEADER + ROW.replace("ON", ""), "p.csv", {}, 2, Said("each row needs a symbol", "none", "line 2")),
    (
        HEADER + ROW.replace("ON", "\x1b[31m"),
        "p.csv",
        {},
        2,
        Said("a symbol must be printable text", "'\\x1b[31m'", "printable"),
    ),
    (
        HEADER + ROW.replace("2009-01-02", "yesterday"),
        "p.csv",
        {},
        2,
        Said("`session` must be a date", "'yesterday'", "YYYY-MM-DD"),
    ),
    (
        HEADER + ROW.replace("5.0", "five"),
        "p.csv",
        {},
        2,
        Said("`close` must be a plain finite number", "'five'", "such as 1234.5, or empty"),
    ),
    (
        HEADER + ROW * 2,
        "p.csv",
        {},
        2,
        Said("sessions must be unique", "2009-01-02", "keep one row a session"),
    ),
    (HEADER + ROW, "p.csv", {}, 2, Said("a symbol needs at least ", "it has 1", "give a longer history")),
    (
        HEADER + ROW,
        "p.csv",
        {"prices": {"kind": "files", "path": "p.csv", "symbols": ["ONN"]}},
        2,
        Said("has this symbol", "ONN", "did you mean 'ON'?"),
    ),
]

PARQUET: list[tuple[dict[str, Any], Said]] = [
    (
        {"symbol": 1.5},
        Said("the column `symbol` must be text or whole numbers", "it is double", "whole numbers"),
    ),
    ({"session": 1.5}, Said("the column `session` must be dates or text", "it is double", "dates or text")),
    ({"close": True}, Said("must be numbers; it is ", "`close`", "bool")),
]

# ---------------------------------------------------------------------------- commands
# A command in a folder that `world` makes, what is changed in its job, and the exit code.

COMMANDS: list[tuple[str, dict[str, Any], int, Said]] = [
    ("validate {folder}/none.yaml", {}, 2, Said("no such job file", "none.yaml", "name one")),
    ("validate {folder}", {}, 2, Said("the job file cannot be read", "Is a directory", "{folder}")),
    # prices
    (
        "forecast {job} --output {out}",
        {"prices": {"kind": "files", "path": "empty"}},
        2,
        Said("a folder of prices needs files", "it has none", "folder/**/*.csv"),
    ),
    (
        "forecast {job} --output {out}",
        {"prices": {"kind": "sample", "symbols": ["SP50"]}},
        2,
        Said("no sample has this name", "SP50", "did you mean 'SP500'?"),
    ),
    (
        "forecast {job} --output {out}",
        {"calendars": dict.fromkeys(SYMBOLS, "XNYZ")},
        2,
        Said("a calendar must be one that exchange_calendars knows", "'XNYZ'", "XNYS"),
    ),
    (
        "forecast {job} --output {out}",
        {"prices": {"kind": "files", "path": "prices.csv"}, "market": "ONN"},
        2,
        Said("is one of the symbols that have prices. Received: ", "'ONN'", "which has none"),
    ),
    (
        "forecast {job} --output {out}",
        {
            "prices": {"kind": "files", "path": "prices.csv"},
            "covariates": {"ONN": "level"},
            "models": [{"kind": "ridge"}],
        },
        2,
        Said("has no prices that can be used, and models would be others without it", "ONN", "supply them"),
    ),
    (
        "forecast {job} --output {out}",
        {"prices": {"kind": "files", "path": "prices.csv"}, "portfolios": {"ON": {"NO": 1.0}}},
        2,
        Said("has the name of a symbol; give it another", "ON", "give it another"),
    ),
    (
        "forecast {job} --output {out}",
        {"portfolios": {"P": {"NO": 500.0}}},
        3,
        Said("the value of a portfolio stays above zero", "weights with which it loses", "take smaller ones"),
    ),
    (
        "forecast {job} --output {out}",
        {"variance": "range"},
        2,
        Said(
            "variance from the range needs open, high and low",
            "none for 0700",
            "take the variance of returns",
        ),
    ),
    (
        "forecast {job} --output {out} --as-of 1990-01-01",
        {},
        2,
        Said("no symbol can be used: ", "up to 1990-01-01", "there is no other either"),
    ),
    (
        "forecast {job} --output {out} --as-of 1990-01-01",
        {"prices": {"kind": "files", "path": "prices.csv"}},
        2,
        Said("no row lies up to ", "1990-01-01", "later ones have"),
    ),
    (
        "forecast {job} --output {out} --as-of noon",
        {},
        2,
        Said("is a date written YYYY", "'noon'", "--as-of"),
    ),
    (
        "forecast {job} --output {out} --known-at noon",
        {},
        2,
        Said("is a moment written", "'noon'", "or a date"),
    ),
    (
        "forecast {job} --known-at 2001-01-01",
        {},
        2,
        Said(
            "--known-at goes with --output",
            "--known-at 2001-01-01 alone",
            "add --output DIR, or leave it out",
        ),
    ),
    (
        "forecast {job} --output {out} --known-at 2001-01-01",
        {},
        2,
        Said("asks a price store what it knew", "mine has none", "name a `store`"),
    ),
    (
        "forecast {job} --output {folder}/file",
        {},
        2,
        Said("results cannot be written to", "file", "name a folder"),
    ),
    (
        "forecast {job} --output {folder}/file/x",
        {},
        2,
        Said("results cannot be written to", "file", "name a folder"),
    ),
    # a backtest
    (
        "backtest {job} --output {out}",
        {"backtest": {"start": "2031-01-01"}},
        2,
        Said("holds no origin of it", "2031-01-01", "choose other dates"),
    ),
    (
        "backtest {job} --output {out}",
        {"backtest": {"start": LAST}},
        2,
        Said("a backtest needs at least one outcome that is known", LAST, "start earlier"),
    ),
    (
        "backtest {job} --output {out}",
        {"backtest": {"start": "2000-02-10"}},
        2,
        Said("a model learns from at least ", "on the evening of 2000-02-10", "bring more history"),
    ),
    (
        "backtest {job} --output {out}",
        {"prices": {"kind": "files", "path": "star.csv"}},
        2,
        Said("stands for all symbols in a table of scores", "a symbol of that name", "rename it"),
    ),
    (
        "run {job} --output {out}",
        {"workspace": "{folder}/file"},
        2,
        Said("the workspace ", "file", "cannot be written"),
    ),
    (
        "audit {job} --models historicl",
        {},
        2,
        Said("--models names models of the job", "'historicl'", "did you mean"),
    ),
    (
        "audit {job}",
        {"backtest": {"start": "2001-03-20"}},
        2,
        Said("an audit samples at least one origin", "2 origins in 2001-03-20", "start earlier"),
    ),
    # results
    (
        "report {folder}/none",
        {},
        2,
        Said("a report is made from a folder of finished", "none", "`forecaster run`"),
    ),
    (
        "export {job} --output {folder}/x.csv",
        {},
        2,
        Said("an export needs forecasts", "mine", "`forecaster run`"),
    ),
    (
        "export {job} --output {folder}/x.txt --results {folder}/results",
        {},
        2,
        Said("an export is a .csv or an .xlsx file", "x.txt", ".csv or an .xlsx"),
    ),
    (
        "export {job} --output {folder}/file/x.csv --results {folder}/results",
        {},
        2,
        Said("the export cannot be written to", "file/x.csv", "name another file"),
    ),
    (
        "export {job} --output {folder}/x.csv --results {folder}/damaged",
        {},
        2,
        Said("forecasts.parquet", "cannot be read", "Parquet"),
    ),
    (
        "export {job} --output {folder}/x.csv --results {folder}/others",
        {},
        2,
        Said("is no table of forecasts; it lacks: ", "forecasts.parquet", "model, "),
    ),
    (
        "report {folder}/results --output {folder}/file/x.html",
        {},
        2,
        Said("the report cannot be", "file", "--output"),
    ),
    (
        "backtest {job} --output {out}",
        {"engine": {"kind": "dask", "address": "tcp://127.0.0.1:1", "workers": 2}},
        2,
        Said("answers at the address of the engine", "tcp://127.0.0.1:1", "start it, or correct `address`"),
    ),
    # the ledger
    ("status {job}", {}, 1, Said("there is no ledger ", "ledger.db", "`forecaster daily` makes it")),
    (
        "status {job}",
        {"ledger": "{folder}/file"},
        1,
        Said("is not a ledger, or is damaged", "file", "restore a backup"),
    ),
    (
        "status {job}",
        {"ledger": "{folder}/other.db"},
        1,
        Said("is not a ledger: it holds", "'foo'", "of its own"),
    ),
    (
        "status {job}",
        {"ledger": "{folder}"},
        1,
        Said("cannot be opened or written to", "unable to", "name a file"),
    ),
    (
        "status {job}",
        {"ledger": "{folder}/newer.db"},
        1,
        Said("newer than ", "schema 9999", "update the application"),
    ),
    (
        "status {job}",
        {"ledger": "{folder}/torn.db"},
        1,
        Said("refused: ", "no such table", "restore a backup"),
    ),
    (
        "status {job}",
        {"ledger": "{folder}/changed.db"},
        1,
        Said("holds rows that this application does not write", "yesterday", "restore a backup"),
    ),
    (
        "status {job}",
        {"ledger": "mysql://h/db"},
        1,
        Said("a ledger lies in SQLite or", "mysql://", "write a path"),
    ),
    (
        "status {job}",
        {"ledger": "sqlite://"},
        1,
        Said("a ledger lies in a file, not in memory", "memory", "sqlite:///FILE"),
    ),
    (
        "status {job}",
        {"ledger": "postgresql://h:p/d"},
        1,
        Said("the URL of the ledger cannot be read", "URL", "write a path"),
    ),
    (
        "status {job}",
        {"ledger": "postgresql://127.0.0.1:1/db"},
        1,
        Said("refused: ", "127.0.0.1:1", "see that it can be reached"),
    ),
    (
        "ledger backup {job} {folder}/file/x.db",
        {"ledger": "{folder}/file/l.db"},
        1,
        Said("the folder ", "file", "cannot be made"),
    ),
    (
        "ledger backup {job} {folder}/file",
        {"ledger": "{folder}/ok.db"},
        1,
        Said("a backup replaces no file", "file", "name another"),
    ),
    (
        "ledger backup {job} {folder}/file/x.db",
        {"ledger": "{folder}/ok.db"},
        1,
        Said("no copy can be written to", "file", "name another folder"),
    ),
    (
        "ledger restore {job} {folder}/none",
        {},
        1,
        Said("a backup is a file that `backup` wrote", "none", "name another"),
    ),
    (
        "ledger restore {job} {folder}/file",
        {},
        1,
        Said("cannot be used: ", "not a database", "take an older one"),
    ),
    ("ledger restore {job} {folder}/other.db", {}, 1, Said("cannot be used: ", "other.db", "of its own")),
    (
        "ledger restore {job} {folder}/ok.db",
        {"ledger": "{folder}/file"},
        1,
        Said("a backup is restored to a new file", "file, which exists", "name another"),
    ),
    (
        "reproduce 1 --ledger {folder}/none.db",
        {},
        1,
        Said("there is no ledger ", "none.db", "--config or --ledger"),
    ),
    ("reproduce 5 --ledger {folder}/ok.db", {}, 1, Said("has no forecast ", "5", "tell the ids")),
    # the price store
    (
        "forecast {job} --output {out}",
        {"store": "{folder}/none"},
        2,
        Said("there is no price store at", "none", "`forecaster ingest` makes one"),
    ),
    ("ingest {job}", {}, 2, Said("has no price store", "mine", "name one, for example `store:")),
    (
        "ingest {job}",
        {"store": "{folder}/file"},
        2,
        Said("a price store is a folder", "file is a file", "another `store`"),
    ),
    (
        "ingest {job}",
        {"store": "{folder}/results"},
        2,
        Said("a price store needs a folder of its own", "results", "another `store`"),
    ),
    (
        "ingest {job}",
        {"store": "{folder}/file/x"},
        2,
        Said("must be undamaged and open to ", "file/x", "Not a directory"),
    ),
    (
        "ingest {job} --since noon",
        {"store": "{folder}/new"},
        2,
        Said("is a date written YYYY", "'noon'", "--since"),
    ),
    (
        "ingest {job} --symbols ONN",
        {"store": "{folder}/new"},
        2,
        Said("--symbols names symbols of the job", "'ONN'", "did you mean 'ON'?"),
    ),
    (
        "data status {job} --symbols ONN",
        {"store": "{folder}/store"},
        2,
        Said("--symbols names symbols of the store", "'ONN'", "did you mean 'ON'?"),
    ),
    (
        "data status {job} --output {folder}/file/x",
        {"store": "{folder}/store"},
        2,
        Said("the table cannot be written to", "file/x", "name another file"),
    ),
    (
        "data diff {job} --results {folder}/none",
        {"store": "{folder}/store"},
        2,
        Said("there are no finished results", "none", "that `forecaster run` wrote"),
    ),
    (
        "data diff {job} --results {folder}/results",
        {"store": "{folder}/store"},
        2,
        Said("its forecasts were not made from a price store", "results", "leave it out"),
    ),
    (
        "data accept {job} ON 1990-01-01",
        {"store": "{folder}/store"},
        2,
        Said("only a stored session can be settled", "ON 1990-01-01", "`forecaster data quarantine`"),
    ),
    (
        "data accept {job} ON 2000-01-04 --reason=",
        {"store": "{folder}/store"},
        2,
        Said("`reason` must say why", "an empty text", "say why"),
    ),
    (
        "data compact {job} --results {folder}/results",
        {"store": "{folder}/store"},
        2,
        Said("--results says what to keep of what --before drops", "--results alone", "give --before too"),
    ),
    (
        "data compact {job} --before 2999-01-01",
        {"store": "{folder}/store"},
        2,
        Said("must not lie in the future", "2999-01-01", "look at the clock"),
    ),
    (
        "data backup {job} {folder}/results",
        {"store": "{folder}/store"},
        2,
        Said("a copy replaces nothing", "results", "name another"),
    ),
    (
        "data backup {job} {folder}/bk",
        {"store": "{folder}/none"},
        2,
        Said("there is nothing to back up", "none", "holds no price store"),
    ),
    (
        "data restore {job} {folder}/results",
        {"store": "{folder}/new"},
        2,
        Said("a backup is a folder that `backup` wrote", "results", "`backup`"),
    ),
    (
        "forecast {job} --output {out} --known-at 2001-01-01",
        {"store": "{folder}/store"},
        2,
        Said("had no session of it", "as known at 2001-01-01", "no symbol can be used"),
    ),
    (
        "forecast {job} --output {out}",
        {
            "store": "{folder}/store",
            "prices": {"kind": "files", "path": "prices.csv", "symbols": ["ON", "ZZ"]},
        },
        3,
        Said("had no session of it", "left out ZZ", "`forecaster ingest` fetches what is missing"),
    ),
    (
        "data status {job}",
        {"store": "{folder}/foreign"},
        2,
        Said("a price store needs a folder of its own", "foreign", "another `store`"),
    ),
    # evenings
    (
        "backfill {job} --from 2001-02-01 --to 2001-01-01",
        {"store": "{folder}/store"},
        2,
        Said("--from lies before --to", "--from 2001-02-01", "before"),
    ),
    (
        "serve {job} --port 0",
        {},
        2,
        Said("a schedule follows the sessions of an exchange", "mine", "schedule: {{calendar: XNYS}}"),
    ),
    (
        "serve {job} {job} --port 0",
        {"schedule": {"calendar": "XNYS"}},
        2,
        Said("jobs that are served have distinct names", "'mine'", "distinct"),
    ),
    (
        "serve {job} --address 256.1.1.1 --port 0",
        {"schedule": {"calendar": "XNYS"}},
        2,
        Said(
            "the health answer needs an address and a port that are free", "256.1.1.1", "--address and --port"
        ),
    ),
    (
        "dashboard {job} --address localhost",
        {},
        2,
        Said("--address is an IP address", "'localhost'", "127.0.0.1"),
    ),
    ("test-alerts {job}", {}, 2, Said("the job has no `alerts`", "job.yaml", "docs/operations.md")),
    (
        "test-alerts {job}",
        {"alerts": [{"kind": "webhook"}]},
        1,
        Said("a message could not be sent", "the lines above say which", "and why"),
    ),
]

YAHOO = {
    "^NOPE": ("the exchange of this index is not known", "name its calendar"),
    "AAPL.ZZ": ("the exchange of the suffix `.ZZ` is not known", "name its calendar"),
    "A B": ("Yahoo's symbols have letters, digits and .^=&_- only", "correct it"),
    "aapl": ("Yahoo writes symbols in capitals", "name AAPL instead"),
    "US0378331005": ("this is an ISIN", "give the symbol that Yahoo uses for it"),
    "MSFT": ("Yahoo gave no usable answer in 1 attempts", "try again later"),
}

# Where other errors are provoked, by a part of what they say. Each takes something that the tests above do
# without: a server, a cluster, TensorFlow, a registry, another process, hours of prices.
ELSEWHERE: dict[str, str] = {
    "a backup is restored into an empty": (
        "test_ledger.py::test_a_backup_of_either_database_is_restored_into_either"
    ),
    "make room, or copy it elsewhere": "test_ledger.py::test_a_full_disk_loses_nothing_that_was_recorded",
    " is full, so nothing was recorded": "test_ledger.py::test_a_full_disk_loses_nothing_that_was_recorded",
    "another process has been writing": "test_ledger.py::test_a_locked_ledger_is_waited_for_and_then_said",
    "the ledger has no file of the job": "test_ledger.py::test_what_is_read_is_what_was_issued",
    "those stand, so leave them out": "test_ledger.py::test_forecasts_are_issued_once_as_in_a_dictionary",
    "a process that is silent for longer": (
        "test_ledger.py::test_a_process_of_another_machine_keeps_its_step_while_it_renews_it"
    ),
    "one process at a time does a step": "test_nights.py::test_two_at_once_do_nothing_twice",
    "which cannot be imported": (
        "test_prices_samples.py::test_without_skfolio_the_extra_is_named_and_the_indices_go_on"
    ),
    "`forecaster data compact` dropped older": (
        "test_prices_store.py::test_wrong_arguments_of_the_others_are_refused"
    ),
    "was dropped by `forecaster data compact`": (
        "test_prices_store.py::test_compaction_keeps_what_a_kept_mark_saw_and_no_more"
    ),
    "; the system says: ": "test_prices_store.py::test_a_store_that_may_not_be_written_is_read_all_the_same",
    "see that it can be reached, or restore its folder": "test_prices_store.py::test_a_damaged_store_is_said",
    "install the newer forecaster that wrote it": "test_prices_store.py::test_a_table_of_others_is_refused",
    "but not one of a price store": "test_prices_store.py::test_a_table_of_others_is_refused",
    "Yahoo is not asked any more": (
        "test_prices_yahoo.py::test_after_some_symbols_in_a_row_the_source_stops_and_names_what_was_not_tried"
    ),
    "Yahoo refuses to answer": "test_prices_yahoo.py::test_a_refused_cookie_is_renewed",
    "the symbol was renamed": "test_prices_yahoo.py::test_a_renamed_symbol_is_not_stored_under_its_old_name",
    " where days were asked for": "test_prices_yahoo.py::test_months_are_not_taken_for_days",
    "has no close yet, so whether": "test_prices_yahoo.py::test_a_split_without_a_bar_after_it_is_refused",
    "a split must have a positive ratio": "test_prices_yahoo.py::test_a_split_that_cannot_be_is_refused",
    "a PDF needs Chromium": "test_report.py::test_without_a_browser_the_pdf_is_refused_and_the_page_is_there",
    "print it from any browser": "test_report.py::test_a_browser_that_does_not_print_is_said",
    "a rollback goes to the version before": "test_nights.py::test_champion_and_previous_change_places",
    "is damaged: its files are not those": "test_nights.py::test_a_damaged_model_gives_way_and_says_so",
    "cannot be fetched: ": "test_nights.py::test_a_damaged_model_gives_way_and_says_so",
    "does not answer: ": (
        "test_nights.py::test_an_evening_goes_on_without_its_registry_and_without_a_training"
    ),
    "the tracking store ": "test_cli.py::test_a_run_that_cannot_track_says_so_and_leaves_the_last_results",
    "a damaged model: ": "test_fuzz.py::test_a_saved_model_that_is_damaged",
    "not a saved model, or a damaged one": "test_fuzz.py::test_a_saved_model_that_is_damaged",
    " did not end within ": "test_alerts.py::test_a_command_that_fails_is_absent_or_does_not_end_is_recorded",
    " ended with ": "test_alerts.py::test_a_command_that_fails_is_absent_or_does_not_end_is_recorded",
    "a user needs a password": "test_alerts.py::test_a_user_signs_in_with_the_password_of_the_environment",
    "a webhook needs an address": "test_alerts.py::test_a_webhook_without_an_address_says_what_to_set",
    "a token goes over an encrypted connection": (
        "test_alerts.py::test_a_token_goes_nowhere_unencrypted_and_follows_no_redirection"
    ),
    "the server answered ": "test_alerts.py::test_what_could_not_be_sent_is_sent_with_the_next",
    "no answer (": "test_alerts.py::test_what_could_not_be_sent_is_sent_with_the_next",
    "the dashboard needs Streamlit": (
        "test_dashboard.py::test_without_streamlit_one_line_says_what_to_install"
    ),
    "cannot be accepted, for no return": (
        "test_ingest.py::test_a_restated_file_is_a_diff_a_quarantine_and_a_decision"
    ),
    "what its forecasts saw is to be kept": (
        "test_ingest.py::test_tidying_keeps_what_forecasts_saw_without_being_told"
    ),
    "nothing of it is written: correct the source": (
        "test_ingest.py::test_a_file_that_lost_its_history_removes_nothing"
    ),
    "FORECASTER_SECRETS_DIR is a folder": (
        "test_alerts.py::test_a_folder_of_secrets_that_is_not_there_fails_no_evening"
    ),
    "no model could be fitted": "test_tasks.py::test_a_model_that_fails_is_named_and_the_others_go_on",
    "they were changed since": "test_nights.py::test_prices_without_a_store_must_be_those_that_were_seen",
    "all origins are scored of a network": "test_origins.py::test_a_model_without_a_scale_is_refused",
}

# What a user of the command line cannot meet: the file, the function and a part of what it says, and why.
LIBRARY = "called from Python alone: the settings of a job are checked before, and its tables are made here"
CARRIES = "carries what another error says, which is listed"
UNFITTED = "the steps fit before they predict and save"
GUARD = "guards against what another check refuses first"
BROKEN = "an installation that is broken"
RACE = "two processes within milliseconds; trying again helps, as it says"
UNREACHABLE: dict[str, str] = {
    **dict.fromkeys(
        [
            "forecaster/calibration.py",
            "forecaster/interop.py",
            "forecaster/kernels",
            "forecaster/liftings.py",
            "forecaster/monitoring.py",
            "forecaster/quantiles.py",
            "forecaster/returns.py",
            "forecaster/scores",
            "forecaster/significance.py",
            "forecaster/threads.py",
            "forecaster/volatility.py",
            "forecaster/models/convolution",
            "forecaster/models/base.py:known_targets",
            "forecaster/models/calibrated.py",
            "forecaster/models/combination.py",
            "forecaster/calendars.py:Calendars.sessions",
            "forecaster/calendars.py:Calendars.close",
            "forecaster/calendars.py:Calendars.last_finished_session",
            "forecaster/ledger/forecasts.py",
            "forecaster/ledger/record.py",
            "forecaster/ledger/steps.py:Run.start",
            "forecaster/prices/base.py",
            "forecaster/prices/checks.py:_require_table",
            "forecaster/prices/files.py:FilesSource.__init__",
            "forecaster/prices/samples.py:SampleSource.__init__",
            "forecaster/prices/store/batch.py",
            "forecaster/prices/store/frames.py",
            "forecaster/prices/store/store.py",
            "forecaster/prices/yahoo/politeness.py:Politeness",
            "forecaster/prices/yahoo/traded.py",
            "forecaster/windows",
            "forecaster/engine.py:Engine.__init__ an engine has at least one worker",
            "forecaster/prices/yahoo/source.py:YahooSource.__init__ `symbols` must be",
        ],
        LIBRARY,
    ),
    **dict.fromkeys(["forecaster/models", "forecaster/walkforward.py:Recalled"], UNFITTED),
    **dict.fromkeys(
        [
            "forecaster/engine.py:_portable",
            "forecaster/job/reading.py:parse_job",
            "forecaster/prices/checks.py:check",
            "forecaster/prices/files.py:FilesSource.load",
            "forecaster/prices/yahoo/source.py:YahooSource.fetch",
            "forecaster/prices/yahoo/source.py:YahooSource._ask",
            "forecaster/prices/yahoo/source.py:_read",
            "forecaster/tracking/served.py",
            "pipelines/cli_nights.py:_later",
            "pipelines/ingest.py:_Reader",
            "pipelines/ingest.py:ingest_step",
            "pipelines/loading.py:_load_stored",
            "pipelines/origins.py:score_origins",
        ],
        CARRIES,
    ),
    **dict.fromkeys(
        [
            "forecaster/walkforward.py:folds",
            "forecaster/ledger/database.py:Database.__init__ a driver",
            "pipelines/ingest.py:_chosen there is nothing to ingest",
            "forecaster/exports.py:to_xlsx",
            "forecaster/tracking/registry.py:Registry._fetch holds no saved model",
        ],
        GUARD,
    ),
    **dict.fromkeys(
        [
            "forecaster/engine.py:Engine.__init__ needs its library",
            "forecaster/report/page.py",
            "forecaster/ledger/database.py:Database.__init__ needs the package",
            "pipelines/cli_readers.py:dashboard_command",
        ],
        BROKEN,
    ),
    **dict.fromkeys(
        [
            "forecaster/prices/store/table.py:Location.lock",
            "forecaster/prices/store/table.py:PricesTable.create",
            "forecaster/prices/store/table.py:PricesTable.attempt",
        ],
        RACE,
    ),
    "forecaster/prices/store/copies.py:backup a backup copies a local folder": "an object store",
    "forecaster/prices/store/copies.py:restore a backup is restored to a local folder": "an object store",
    "forecaster/prices/store/copies.py:_copy cannot be copied": "a disk that fills while a folder is copied",
    "forecaster/prices/yahoo/politeness.py:RateLimit._alone": "a temporary folder that may not be written to",
    "forecaster/prices/yahoo/source.py:YahooSource._agree": (
        "a symbol of another exchange than its calendar's"
    ),
    "pipelines/champion.py:load_version": "a registry that another job of the same name writes to",
    "pipelines/cli_nights.py:reproduce": "another processor or another version of a library",
    "pipelines/reproduce.py:_row": "a ledger that another application writes to",
    "pipelines/tasks.py:_from_store": "a cluster whose machines see other folders",
    "pipelines/alerts.py:_mail refused for ": "a mail server that takes some recipients only",
}
