//! One test for each case and kind of store. A case is a function of a fixture, in the file that lists it.

/// Each case on SQLite and on PostgreSQL.
macro_rules! cases {
    ($($case:ident,)*) => {
        mod sqlite {
            $(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    super::$case(crate::fixture::SqliteFixture::new()).await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test]
                async fn $case() {
                    let Some(fixture) = crate::fixture::PostgresFixture::new().await else { return };
                    super::$case(fixture).await;
                }
            )*
        }
    };
}

/// Each case on SQLite, on PostgreSQL, and behind pgbouncer.
macro_rules! cases_and_pooled {
    ($($case:ident,)*) => {
        cases! { $($case,)* }

        mod pgbouncer {
            $(
                #[tokio::test]
                async fn $case() {
                    let Some(fixture) = crate::fixture::PostgresFixture::pooled().await else { return };
                    super::$case(fixture).await;
                }
            )*
        }
    };
}
