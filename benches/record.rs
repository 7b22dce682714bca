//! The cost of a record on the caller's thread: of encoding and of decoding.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use http::Response;
use refrain::backend::Completion;
use refrain::internals::{decode_record, encode_record};
use refrain::{Fingerprint, Key, Scope};

const BODIES: [usize; 3] = [200, 1024, 16 * 1024];
const TTL: Duration = Duration::from_secs(24 * 60 * 60);

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for len in BODIES {
        let (key, response) = (key(), response(len));
        let scope = Scope::from_api_key("sk_live_51");
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| encode_record(scope, &key, &completion(black_box(&response))));
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for len in BODIES {
        let scope = Scope::from_api_key("sk_live_51");
        let bytes = Bytes::from(encode_record(scope, &key(), &completion(&response(len))));
        // Not bytes: the record shares the body, and only its digest's check reads that.
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| decode_record(black_box(&bytes)).expect("it was encoded"));
        });
    }
    group.finish();
}

fn completion(response: &Response<Bytes>) -> Completion {
    Completion {
        fingerprint: Fingerprint::from_bytes([9; 32]),
        request_id: "req_81".parse().expect("it is within the grammar"),
        ttl: TTL,
        response: Some(response.clone()),
    }
}

fn key() -> Key {
    "9b8cfa7a-1c2d-4a88-b3c0-1d2e3f4a5b6c".parse().expect("a UUID is a key")
}

fn response(len: usize) -> Response<Bytes> {
    Response::builder()
        .status(201)
        .header("content-type", "application/json")
        .header("location", "/v1/calls/81")
        .body(Bytes::from(vec![b'x'; len]))
        .expect("it is within the grammar")
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
