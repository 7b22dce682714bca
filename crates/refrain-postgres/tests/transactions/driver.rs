//! The drivers whose transactions complete operations.

use bytes::Bytes;
use http::Response;
use refrain::{Permit, Result};
#[cfg(feature = "sqlx")]
use sqlx_core::connection::Connection;
#[cfg(feature = "sqlx")]
use sqlx_postgres::PgConnection;

use crate::kit::room::{Room, client};
use crate::kit::server::runtime;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Driver {
    TokioPostgres,
    #[cfg(feature = "sqlx")]
    Sqlx,
}

pub(crate) const DRIVERS: &[Driver] = &[
    Driver::TokioPostgres,
    #[cfg(feature = "sqlx")]
    Driver::Sqlx,
];

#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Commit,
    RollBack,
}

impl Driver {
    /// Pays and completes in one transaction. `look` is told what came of it, and says how the
    /// transaction ends.
    pub(crate) fn transfer(
        self,
        room: &Room,
        permit: &mut Permit,
        response: &Response<Bytes>,
        look: impl FnOnce(Result<()>) -> End,
    ) {
        match self {
            Self::TokioPostgres => {
                let mut client = client();
                let transaction = crate::pay(room, &mut client);
                let told = crate::complete_in(permit, &transaction, response);
                match look(told) {
                    End::Commit => crate::commit(transaction),
                    End::RollBack => crate::roll_back(transaction),
                }
            }
            #[cfg(feature = "sqlx")]
            Self::Sqlx => over_sqlx(room, permit, response, look),
        }
    }

    /// Completes in a transaction in the database at an address, and rolls it back.
    pub(crate) fn complete_at(
        self,
        address: &str,
        permit: &mut Permit,
        response: &Response<Bytes>,
    ) -> Result<()> {
        runtime().block_on(async {
            match self {
                Self::TokioPostgres => {
                    let (mut client, connection) =
                        tokio_postgres::connect(address, tokio_postgres::NoTls).await.unwrap();
                    tokio::spawn(connection);
                    let transaction = client.transaction().await.unwrap();
                    refrain_postgres::CompleteIn::complete_in(permit, &transaction, response).await
                }
                #[cfg(feature = "sqlx")]
                Self::Sqlx => {
                    use refrain_postgres::sqlx::CompleteIn;
                    let mut connection = PgConnection::connect(address).await.unwrap();
                    let mut transaction = connection.begin().await.unwrap();
                    permit.complete_in(&mut transaction, response).await
                }
            }
        })
    }
}

#[cfg(feature = "sqlx")]
fn over_sqlx(
    room: &Room,
    permit: &mut Permit,
    response: &Response<Bytes>,
    look: impl FnOnce(Result<()>) -> End,
) {
    use refrain_postgres::sqlx::CompleteIn;

    let address = crate::kit::room::address();
    runtime().block_on(async {
        let mut connection = PgConnection::connect(&address).await.unwrap();
        let mut transaction = connection.begin().await.unwrap();
        sqlx_core::query::query(&crate::paying(room)).execute(&mut *transaction).await.unwrap();
        let told = permit.complete_in(&mut transaction, response).await;
        let end = tokio::task::block_in_place(|| look(told));
        match end {
            End::Commit => transaction.commit().await.unwrap(),
            End::RollBack => transaction.rollback().await.unwrap(),
        }
    });
}
