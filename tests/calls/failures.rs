//! A request that failed leaves its key free.

use crate::client::*;
use crate::server::*;

const UNVERIFIED: &str = r#"{"caller_id": "+19995551234", "destination": "+14155556789"}"#;

#[tokio::test]
async fn a_corrected_body_may_take_the_key_of_an_invalid_one() {
    for mode in [&[][..], &["--strict"]] {
        let home = Home::new();
        let server = home.start(mode);
        let invalid = server.place("key", &CALL.replace("+14155551234", "4155551234")).await;
        assert_eq!((invalid.status.as_u16(), &*invalid.code()), (400, "validation_error"));
        assert_eq!(invalid.json()["error"]["message"], "caller_id must be E.164 format");
        let expected = "Expected +<country><number>";
        assert_eq!(invalid.field("caller_id").as_deref(), Some(expected));
        assert!(home.journal().is_empty(), "the carrier was not asked");

        let corrected = server.place("key", CALL).await;
        assert_eq!(corrected.status, 201);
        assert!(!corrected.is_replay());
        assert_eq!(home.journal().len(), 1);
    }
}

#[tokio::test]
async fn what_the_carrier_refuses_runs_again_each_time() {
    for mode in [&[][..], &["--strict"]] {
        let home = Home::new();
        let server = home.start(mode);
        for runs in 1..=2 {
            let refused = server.place("key", UNVERIFIED).await;
            assert_eq!(refused.status, 422);
            assert_eq!(refused.code(), "caller_id_not_verified");
            assert!(!refused.is_replay());
            assert_eq!(home.journal().len(), runs);
        }
        assert_eq!(server.place("key", CALL).await.status, 201);
        assert_eq!(home.journal().len(), 3);
    }
}
