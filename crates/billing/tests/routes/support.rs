//! A billing service without its sockets: the real router over a real store, and helpers for calls.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use billing::demo_data::{self, Demo};
use billing::http::{Access, AccessRules, AppState, router};
use billing::protocol::key::DeploymentId;
use billing::protocol::transition::Idempotency;
use billing::scheduler::{ScheduleSettings, Scheduler};
use billing::store::Store;
use billing::store::postgres::{PostgresStore, SCHEMA};
use billing::store::sqlite::SqliteStore;
use chassis::clock::{Clock, Random};
use chassis::postgres::{Postgres, PostgresSettings};
use chassis::shutdown::Shutdown;
use chassis::telemetry::Telemetry;
use http::{HeaderMap, Request, header};
use serde_json::Value;
use tempfile::TempDir;
use testkit::Database;
use tower::ServiceExt;
use uuid::Uuid;

use crate::engine::{self, UNREACHABLE};

/// Body of each 404 of a legacy route.
pub(crate) const NOT_FOUND: &str = "\"not found\"";

/// The deployment id of every store here.
pub(crate) const DEPLOYMENT: &str = "00000000-0000-4000-8000-000000000001";

/// The initial time of every clock here.
pub(crate) const START: &str = "2023-11-14T22:13:20.000Z";
const START_MS: i64 = 1_700_000_000_000;

/// A billing service.
pub(crate) struct Billing {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) router: Router,
    folder: TempDir,
    _database: Option<Database>,
}

fn deployment() -> DeploymentId {
    DeploymentId(Uuid::parse_str(DEPLOYMENT).unwrap())
}

/// One response, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: String,
}

impl Billing {
    /// A service with an empty store.
    pub(crate) async fn empty() -> Self {
        Self::guarded(AccessRules::open(), "127.0.0.1:8000").await
    }

    /// A service whose store has these lines imported.
    pub(crate) async fn with(lines: &str) -> Self {
        let billing = Self::empty().await;
        let report = billing.call("POST", "/v1/imports", lines).await.json();
        assert_eq!(report["errors_total"], 0, "{report}");
        billing
    }

    /// A service whose store has this demo.
    pub(crate) async fn demo(demo: Demo) -> Self {
        let billing = Self::empty().await;
        demo_data::load(billing.store.as_ref(), demo, &Random::seeded(8213)).await.unwrap();
        billing
    }

    /// A service with an empty store, for a listener at this address.
    pub(crate) async fn guarded(rules: AccessRules, listener: &str) -> Self {
        Self::build(Access::new(rules, listener.parse().unwrap()), UNREACHABLE, Idempotency::None).await
    }

    /// A service whose store has these lines imported, and a provider at this URL.
    pub(crate) async fn charging(lines: &str, endpoint: &str, idempotency: Idempotency) -> Self {
        let access = Access::new(AccessRules::open(), "127.0.0.1:8000".parse().unwrap());
        let billing = Self::build(access, endpoint, idempotency).await;
        let report = billing.call("POST", "/v1/imports", lines).await.json();
        assert_eq!(report["errors_total"], 0, "{report}");
        billing
    }

    async fn build(access: Access, endpoint: &str, idempotency: Idempotency) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("billing.db");
        let clock = Clock::simulated(START_MS);
        let random = Random::seeded(1);
        let store = SqliteStore::open(&path, Some(deployment()), clock.clone(), &random).await.unwrap();
        let billing = Self::over(Arc::new(store), clock, access, endpoint, idempotency).await;
        Self { folder, ..billing }
    }

    /// A service with an empty PostgreSQL store, whose clock stands still. `None`, with a loud notice, without
    /// PostgreSQL.
    pub(crate) async fn on_postgres() -> Option<Self> {
        let fresh = Database::fresh("billing's console over PostgreSQL")?;
        let settings = PostgresSettings::parse(fresh.url(), None, 4, "billing").unwrap();
        let database = Postgres::open(&settings, SCHEMA, None, Random::system()).unwrap();
        database.migrate().await.unwrap();
        fresh.run(&format!(
            "CREATE OR REPLACE FUNCTION billing_now_ms() RETURNS bigint LANGUAGE sql VOLATILE
                 AS $$ SELECT {START_MS}::bigint $$"
        ));
        let clock = Clock::system();
        let store = PostgresStore::open(database, Some(deployment()), Uuid::nil(), &clock).await.unwrap();
        let access = Access::new(AccessRules::open(), "127.0.0.1:8000".parse().unwrap());
        let billing = Self::over(Arc::new(store), clock, access, UNREACHABLE, Idempotency::None).await;
        Some(Self { _database: Some(fresh), ..billing })
    }

    async fn over(
        store: Arc<dyn Store>,
        clock: Clock,
        access: Access,
        endpoint: &str,
        idempotency: Idempotency,
    ) -> Self {
        let engine = engine::engine(Arc::clone(&store), clock.clone(), endpoint, idempotency).await;
        let scheduler = Scheduler::new(
            Arc::clone(&store),
            engine.clone(),
            ScheduleSettings::default(),
            clock,
            &Telemetry::new("billing", "0.0.0", "test").metrics,
            Shutdown::new(),
        );
        let scheduler = Arc::new(scheduler);
        let router = router(AppState { store: Arc::clone(&store), engine, scheduler, access });
        Self { store, router, folder: tempfile::tempdir().unwrap(), _database: None }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, Body::from(body.to_owned())).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, body: Body) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        Answer::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    pub(crate) async fn with_headers(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let request = Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Body::from(body.to_owned())).unwrap();
        Answer::read(self.router.clone().oneshot(request).await.unwrap()).await
    }

    /// A response whose body is not read yet.
    pub(crate) async fn answer(&self, method: &str, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Locks the store against writes until this connection is dropped, as another program may.
    pub(crate) fn lock(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.folder.path().join("billing.db")).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }

    /// Runs a statement without the service's knowledge.
    pub(crate) fn spoil(&self, sql: &str) {
        let path: PathBuf = self.folder.path().join("billing.db");
        rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }
}

impl Answer {
    async fn read(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    pub(crate) fn content_type(&self) -> String {
        self.header(header::CONTENT_TYPE.as_str()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Asserts that the whole response has exactly these bytes.
    pub(crate) fn is(&self, status: u16, content_type: &str, body: &str) {
        let answer = (self.status, self.content_type(), self.body.clone());
        assert_eq!(answer, (status, content_type.to_owned(), body.to_owned()));
    }
}
