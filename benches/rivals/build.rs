//! Links RocksDB if the machine has Debian's `librocksdb-dev`: RocksDB's own crate would build for
//! half an hour.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(rocksdb)");
    println!("cargo::rerun-if-changed=build.rs");
    if pkg_config::Config::new().atleast_version("7.0").probe("rocksdb").is_ok() {
        println!("cargo::rustc-cfg=rocksdb");
    }
}
