//! Whether hash partitions make writing cheaper among many rows. On PostgreSQL the same rows are written alternately
//! into one table and into one with partitions. Both tables have the columns of the service's table and the indexes
//! that partitions allow, without its triggers and references. Knows the two tables that grow with each charge; judges
//! nothing.

use std::fs;
use std::io::{self, Write};
use std::process::Command;
use std::sync::Arc;

use testkit::postgres::{Database, Server};
use testkit::process::{Process, Spec, run_by};

use crate::grouped;

const PARTITIONS: usize = 16;
/// Rows of one statement, as in a batch of a run.
const BATCH: usize = 64;
/// Connections that write at the same time.
const CLIENTS: usize = 4;
/// Statements of one connection in one round.
const STATEMENTS: usize = 500;
const TINJIS: &str = env!("CARGO_BIN_EXE_tinjis");
/// Settings with a cache that holds the upper pages of the indexes and not all leaves. The other settings make filling
/// quick.
const SETTINGS: [&str; 5] = [
    "shared_buffers=512MB",
    "max_wal_size=8GB",
    "maintenance_work_mem=512MB",
    "wal_level=minimal",
    "max_wal_senders=0",
];

/// A table that gets at least one row per charge.
struct Table {
    name: &'static str,
    /// The partition key: the column of an index that must stay unique.
    by: &'static str,
    /// Indexes: UNIQUE or nothing, and the indexed columns. A unique index of a partitioned table must contain `by`.
    indexes: &'static [(&'static str, &'static str)],
    columns: &'static str,
    /// Values of a row that exists before the measurement; `n` is its number.
    before: &'static str,
    /// Values of a row of a batch; `:base::bigint + n` is a new number.
    batch: &'static str,
    /// A statement that changes the rows of a batch afterwards.
    then: &'static str,
}

const TABLES: [Table; 2] = [
    Table {
        name: "ledger",
        by: "key",
        indexes: &[("UNIQUE", "(key, account)"), ("", "(account, seq)"), ("", "(seq)")],
        columns: "seq, key, account, fingerprint, reference, customer_id, currency, amount_minor, state, route, created_at",
        before: "n, md5(n::text), 'billing', repeat(md5(n::text), 2), 'INV-' || n, n % 100000 + 1, 'EUR', 990, 'CHARGED', \
            'charge', 1700000000000 + n",
        batch: "nextval('numbers'), md5((:base::bigint + n)::text), 'billing', repeat(md5(n::text), 2), 'INV-' || :base::bigint + n, \
            n % 100000 + 1, 'EUR', 990, 'CHARGED', 'charge', 1700000000000 + n",
        then: "",
    },
    Table {
        name: "attempts",
        by: "invoice_id",
        indexes: &[
            ("UNIQUE", "(key, invoice_id)"),
            ("UNIQUE", "(invoice_id, number)"),
            ("UNIQUE", "(invoice_id) WHERE state = 'CHARGED'"),
            ("UNIQUE", "(invoice_id) WHERE state IN ('INTENT', 'IN_DOUBT')"),
            ("", "(lease_until) WHERE state IN ('INTENT', 'IN_DOUBT')"),
            ("", "(customer_id, settled_at) WHERE state = 'REFUSED'"),
        ],
        columns: "key, invoice_id, number, customer_id, currency, amount_minor, state, sends, run_id, lease_until, \
            created_at, settled_at",
        before: "md5(n::text), n, 1, n % 100000 + 1, 'EUR', 990, 'CHARGED', 1, 1, n, n, n",
        batch: "md5((:base::bigint + n)::text), :base::bigint + n, 1, n % 100000 + 1, 'EUR', 990, 'INTENT', 1, 1, n, n, NULL",
        then: "UPDATE {table} AS t SET state = 'CHARGED', settled_at = 1 FROM generate_series(1, {batch}) AS n \
            WHERE t.invoice_id = :base::bigint + n AND t.key = md5((:base::bigint + n)::text);",
    },
];

/// The cost of one row, from one round with one shape of a table.
#[derive(Clone, Copy)]
struct Measured {
    cpu_ns: u64,
    wal_bytes: u64,
}

/// Measures each table with this many existing rows and prints medians; does nothing where there is no server.
pub(crate) fn report(out: &mut impl Write, rows: usize, rounds: usize) -> io::Result<()> {
    let Some(server) = Server::start_with("the benchmark of partitions", &SETTINGS, None) else {
        return Ok(());
    };
    let server = Arc::new(server);
    writeln!(
        out,
        "a row among {}, batches of {BATCH}, {CLIENTS} connections, {rounds} rounds",
        grouped(rows)
    )?;
    for table in &TABLES {
        let database = Database::of(&server);
        migrate(&database)?;
        table.fill(out, &database, rows)?;
        let shapes = ["whole", "parts"];
        let mut measured: [Vec<Measured>; 2] = Default::default();
        // The first round warms the caches and does not count.
        for round in 0..=rounds {
            for step in 0..shapes.len() {
                let turn = (round + step) % shapes.len();
                let figures = table.write(&server, &database, shapes[turn])?;
                if round > 0 {
                    measured[turn].push(figures);
                }
            }
        }
        let [whole, parts] = measured;
        let mut ratios: Vec<u64> =
            whole.iter().zip(&parts).map(|(one, many)| many.cpu_ns * 1000 / one.cpu_ns.max(1)).collect();
        ratios.sort_unstable();
        let (least, middle, most) = (ratios[0], ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
        for (name, figures) in [("in one piece", whole), ("in partitions", parts)] {
            let figures = median(figures);
            writeln!(
                out,
                "  {:<8} {name:<13} CPU of the server {}.{} µs, WAL {} bytes",
                table.name,
                figures.cpu_ns / 1000,
                figures.cpu_ns % 1000 / 100,
                figures.wal_bytes
            )?;
        }
        writeln!(
            out,
            "  {:<8} CPU in partitions ÷ in one piece, in thousandths: {middle} (rounds {least} to {most})",
            table.name
        )?;
    }
    Ok(())
}

/// Creates both schemas, as the services do.
fn migrate(database: &Database) -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    for service in ["billing", "payments"] {
        let mut spec = Spec::new(run_by(TINJIS, service), service, folder.path());
        spec.env.insert("DATABASE_URL".to_owned(), database.url().to_owned());
        Process::new(spec).run_to_end("migrate");
    }
    Ok(())
}

impl Table {
    /// Fills both shapes with the same rows and creates the same indexes last.
    fn fill(&self, out: &mut impl Write, database: &Database, rows: usize) -> io::Result<()> {
        let Self { name, by, columns, before, .. } = self;
        let like = format!("(LIKE {name} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)");
        let partitions: String = (0..PARTITIONS)
            .map(|nth| {
                format!(
                    "CREATE TABLE parts_{nth} PARTITION OF parts \
                     FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {nth});"
                )
            })
            .collect();
        database.run(&format!("CREATE SEQUENCE numbers START {};", rows + 1));
        let shapes = [
            ("whole", format!("CREATE TABLE whole {like};")),
            ("parts", format!("CREATE TABLE parts {like} PARTITION BY HASH ({by}); {partitions}")),
        ];
        for (shape, create) in shapes {
            writeln!(out, "  filling {name}, {shape}")?;
            let indexes: String = self
                .indexes
                .iter()
                .map(|(unique, on)| format!("CREATE {unique} INDEX ON {shape} {on};"))
                .collect();
            // One transaction, so that the minimal WAL leaves the rows out.
            database.run(&format!(
                "{create} INSERT INTO {shape} ({columns}) SELECT {before} FROM generate_series(1, {rows}) AS n; {indexes}"
            ));
            database.run(&format!("VACUUM ANALYZE {shape}"));
        }
        database.run("CHECKPOINT");
        Ok(())
    }

    fn write(&self, server: &Server, database: &Database, shape: &str) -> io::Result<Measured> {
        let Self { columns, batch, then, .. } = self;
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("batch.sql");
        let then = then.replace("{table}", shape).replace("{batch}", &BATCH.to_string());
        fs::write(
            &script,
            format!(
                "\\set base random(1000000000000, 1000000000000000)\n\
                 INSERT INTO {shape} ({columns}) SELECT {batch} FROM generate_series(1, {BATCH}) AS n \
                 ON CONFLICT DO NOTHING;\n{then}\n"
            ),
        )?;
        let wal = || database.ask("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint");
        database.run("CHECKPOINT");
        let (cpu, written) = (server.cpu_ms(), wal());
        let output = Command::new(server.tool("pgbench"))
            .args(["--no-vacuum", "--protocol=prepared", "--client"])
            .arg(CLIENTS.to_string())
            .args(["--transactions", &STATEMENTS.to_string(), "--file"])
            .args([script.as_os_str(), database.url().as_ref()])
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let rows = (CLIENTS * STATEMENTS * BATCH) as u64;
        Ok(Measured {
            cpu_ns: (server.cpu_ms() - cpu) * 1_000_000 / rows,
            wal_bytes: u64::try_from(wal() - written).unwrap_or(0) / rows,
        })
    }
}

/// The round with the median CPU.
fn median(mut measured: Vec<Measured>) -> Measured {
    measured.sort_by_key(|figures| figures.cpu_ns);
    measured.swap_remove(measured.len() / 2)
}
