//! Memory while a long table is listed to many clients. The only test of its process, because it reads the process's
//! peak.

#[cfg(test)]
#[path = "routes/engine.rs"]
mod engine;

#[cfg(test)]
mod alone {
    use std::sync::Arc;

    use billing::http::{Access, AccessRules, AppState, router};
    use billing::protocol::transition::Idempotency;
    use billing::scheduler::{ScheduleSettings, Scheduler};
    use billing::store::Store;
    use billing::store::sqlite::SqliteStore;
    use chassis::clock::{Clock, Random};
    use chassis::server::{Limits, Server};
    use chassis::shutdown::Shutdown;
    use chassis::telemetry::Telemetry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;

    use crate::engine;

    const INVOICES: usize = 100_000;
    const CLIENTS: usize = 8;
    const GROWTH_KIB_MAX: u64 = 32 * 1024;

    const FILL: &str = "
        INSERT INTO customers (id, currency) VALUES (1, 'EUR');
        INSERT INTO invoices (reference, customer_id, currency, amount_minor, state, created_at, updated_at)
        WITH RECURSIVE n(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < 100000)
        SELECT 'invoice-' || n, 1, 'EUR', n, 'PENDING', 0, 0 FROM n";

    /// The peak memory of this process since the last call, in KiB.
    fn peak_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_thousand_invoices_are_listed_to_eight_clients_within_32_mib() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("billing.db");
        let store = SqliteStore::open(&path, None, Clock::system(), &Random::seeded(1)).await.unwrap();
        rusqlite::Connection::open(&path).unwrap().execute_batch(FILL).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let access = Access::new(AccessRules::open(), address);
        let engine =
            engine::engine(Arc::clone(&store), Clock::system(), engine::UNREACHABLE, Idempotency::Keys).await;
        let scheduler = Scheduler::new(
            Arc::clone(&store),
            engine.clone(),
            ScheduleSettings::default(),
            Clock::system(),
            &Telemetry::new("billing", "0.0.0", "test").metrics,
            Shutdown::new(),
        );
        let state = AppState { store, engine, scheduler: Arc::new(scheduler), access };
        tokio::spawn(Server::new(listener, router(state), Limits::default()).serve(Shutdown::new()));

        peak_kib();
        let before = peak_kib();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = b"GET /rest/v1/invoices HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                stream.write_all(request).await.unwrap();
                let (mut piece, mut objects) = ([0; 16 * 1024], 0);
                loop {
                    let read = stream.read(&mut piece).await.unwrap();
                    if read == 0 {
                        return objects;
                    }
                    // One brace belongs to the invoice, one to its amount.
                    objects += piece[..read].iter().filter(|byte| **byte == b'{').count();
                }
            });
        }
        while let Some(objects) = clients.join_next().await {
            assert_eq!(objects.unwrap(), 2 * INVOICES);
        }
        let growth = peak_kib().saturating_sub(before);
        assert!(growth <= GROWTH_KIB_MAX, "the lists took {growth} KiB");
    }
}
