//! RocksDB through its C interface: group commit and write-ahead log of its own, synced.
#![allow(unsafe_code, reason = "it is a library in C++")]

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};

use super::{Rival, Session};
use crate::grouped::value;
use crate::workload::Name;

const MEMTABLES_BYTES: u64 = 512 << 20;
const CACHE_BYTES: usize = 1 << 30;
const LOGS_RECYCLED: usize = 4;
/// The only recovery mode with which 7.8 recycles logs: skip what does not verify. It promises less
/// than the default, and in it 7.8.3 never finishes where a recycled log was killed: so it is for
/// new stores alone.
const SKIP_ANY_CORRUPTED_RECORD: c_int = 3;
const BLOOM_BITS: f64 = 10.0;
const BUSY: [&CStr; 4] = [
    c"rocksdb.mem-table-flush-pending",
    c"rocksdb.num-running-flushes",
    c"rocksdb.compaction-pending",
    c"rocksdb.num-running-compactions",
];

/// All its objects are opaque here.
type Object = *mut c_void;
type Text = *const c_char;

unsafe extern "C" {
    fn rocksdb_options_create() -> Object;
    fn rocksdb_options_set_create_if_missing(options: Object, on: c_uchar);
    fn rocksdb_options_increase_parallelism(options: Object, threads: c_int);
    fn rocksdb_options_optimize_level_style_compaction(options: Object, memtables: u64);
    fn rocksdb_options_set_recycle_log_file_num(options: Object, count: usize);
    fn rocksdb_options_set_wal_recovery_mode(options: Object, mode: c_int);
    fn rocksdb_options_set_enable_pipelined_write(options: Object, on: c_uchar);
    fn rocksdb_options_set_block_based_table_factory(options: Object, table: Object);
    fn rocksdb_block_based_options_create() -> Object;
    fn rocksdb_block_based_options_set_filter_policy(table: Object, policy: Object);
    fn rocksdb_block_based_options_set_block_cache(table: Object, cache: Object);
    fn rocksdb_filterpolicy_create_bloom_full(bits: f64) -> Object;
    fn rocksdb_cache_create_lru(bytes: usize) -> Object;
    fn rocksdb_writeoptions_create() -> Object;
    fn rocksdb_writeoptions_set_sync(options: Object, on: c_uchar);
    fn rocksdb_readoptions_create() -> Object;
    fn rocksdb_flushoptions_create() -> Object;
    fn rocksdb_open(options: Object, path: Text, error: *mut *mut c_char) -> Object;
    fn rocksdb_close(database: Object);
    fn rocksdb_put(
        database: Object,
        options: Object,
        key: Text,
        key_len: usize,
        value: Text,
        value_len: usize,
        error: *mut *mut c_char,
    );
    fn rocksdb_get_pinned(
        database: Object,
        options: Object,
        key: Text,
        key_len: usize,
        error: *mut *mut c_char,
    ) -> Object;
    fn rocksdb_pinnableslice_value(slice: Object, len: *mut usize) -> Text;
    fn rocksdb_pinnableslice_destroy(slice: Object);
    fn rocksdb_write(database: Object, options: Object, batch: Object, error: *mut *mut c_char);
    fn rocksdb_flush(database: Object, options: Object, error: *mut *mut c_char);
    fn rocksdb_property_int(database: Object, name: Text, out: *mut u64) -> c_int;
    fn rocksdb_free(memory: *mut c_void);
    fn rocksdb_writebatch_create() -> Object;
    fn rocksdb_writebatch_delete(batch: Object, key: Text, key_len: usize);
    fn rocksdb_writebatch_destroy(batch: Object);
    fn rocksdb_create_iterator(database: Object, options: Object) -> Object;
    fn rocksdb_iter_seek(iterator: Object, key: Text, key_len: usize);
    fn rocksdb_iter_valid(iterator: Object) -> c_uchar;
    fn rocksdb_iter_next(iterator: Object);
    fn rocksdb_iter_key(iterator: Object, len: *mut usize) -> Text;
    fn rocksdb_iter_destroy(iterator: Object);
}

#[derive(Clone)]
pub struct Rocks(Arc<Database>);

/// The options live as long as the process.
struct Database {
    database: Object,
    write: Object,
    read: Object,
}

// SAFETY: the library's databases and options may be used from any thread.
unsafe impl Send for Database {}
// SAFETY: as above.
unsafe impl Sync for Database {}

impl Rocks {
    pub fn open(directory: &Path) -> Result<Self> {
        let path = CString::new(directory.as_os_str().as_encoded_bytes())?;
        // SAFETY: every object is made by the library just before it is passed to it.
        unsafe {
            let table = rocksdb_block_based_options_create();
            let bloom = rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS);
            rocksdb_block_based_options_set_filter_policy(table, bloom);
            let cache = rocksdb_cache_create_lru(CACHE_BYTES);
            rocksdb_block_based_options_set_block_cache(table, cache);
            let options = rocksdb_options_create();
            rocksdb_options_set_create_if_missing(options, 1);
            rocksdb_options_increase_parallelism(options, 2);
            rocksdb_options_optimize_level_style_compaction(options, MEMTABLES_BYTES);
            if !directory.join("CURRENT").exists() {
                rocksdb_options_set_recycle_log_file_num(options, LOGS_RECYCLED);
                rocksdb_options_set_wal_recovery_mode(options, SKIP_ANY_CORRUPTED_RECORD);
            }
            rocksdb_options_set_enable_pipelined_write(options, 1);
            rocksdb_options_set_block_based_table_factory(options, table);
            let write = rocksdb_writeoptions_create();
            rocksdb_writeoptions_set_sync(write, 1);
            let read = rocksdb_readoptions_create();
            let database = checked(|error| rocksdb_open(options, path.as_ptr(), error))?;
            Ok(Self(Arc::new(Database { database, write, read })))
        }
    }
}

/// Turns the library's error, a string of its own, into ours.
fn checked<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T> {
    let mut error = null_mut();
    let value = call(&raw mut error);
    if error.is_null() {
        return Ok(value);
    }
    // SAFETY: it is a string that the library made, and hands over.
    let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: as above, and nobody has it any more.
    unsafe { rocksdb_free(error.cast()) };
    bail!("{text}")
}

impl Rival for Rocks {
    fn session(&self, _: usize) -> Result<Box<dyn Session>> {
        Ok(Box::new(self.clone()))
    }

    fn settle(&self) -> Result<()> {
        let Database { database, .. } = *self.0;
        // SAFETY: the database is open for as long as it is shared.
        checked(|error| unsafe { rocksdb_flush(database, rocksdb_flushoptions_create(), error) })?;
        loop {
            let busy = BUSY.iter().any(|name| {
                let mut value = 0;
                // SAFETY: as above; the value is ours.
                unsafe { rocksdb_property_int(database, name.as_ptr(), &raw mut value) };
                value > 0
            });
            if !busy {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn expire(&self, max: usize) -> Result<usize> {
        let Database { database, write, read } = *self.0;
        let mut count = 0;
        // SAFETY: the iterator's key is valid until it moves on, and is copied by the batch.
        unsafe {
            let batch = rocksdb_writebatch_create();
            let iterator = rocksdb_create_iterator(database, read);
            rocksdb_iter_seek(iterator, [Name::OLD].as_ptr().cast(), 1);
            while count < max && rocksdb_iter_valid(iterator) != 0 {
                let mut len = 0;
                let key = rocksdb_iter_key(iterator, &raw mut len);
                if len == 0 || key.cast::<u8>().read() != Name::OLD {
                    break;
                }
                rocksdb_writebatch_delete(batch, key, len);
                count += 1;
                rocksdb_iter_next(iterator);
            }
            rocksdb_iter_destroy(iterator);
            let written = checked(|error| rocksdb_write(database, write, batch, error));
            rocksdb_writebatch_destroy(batch);
            written?;
        }
        Ok(count)
    }
}

impl Session for Rocks {
    fn record(&mut self, name: &Name, body: &[u8]) -> Result<()> {
        anyhow::ensure!(!self.replay(name)?, "the key is known");
        let Database { database, write, .. } = *self.0;
        let (key, value) = (&name.bytes, value(body));
        // SAFETY: pointers and lengths are those of slices that outlive the call.
        checked(|error| unsafe {
            let (key, value, len) = (key.as_ptr().cast(), value.as_ptr().cast(), value.len());
            rocksdb_put(database, write, key, name.bytes.len(), value, len, error);
        })
    }

    fn replay(&mut self, name: &Name) -> Result<bool> {
        let Database { database, read, .. } = *self.0;
        // SAFETY: as above.
        let slice = checked(|error| unsafe {
            let key = name.bytes.as_ptr().cast();
            rocksdb_get_pinned(database, read, key, name.bytes.len(), error)
        })?;
        if slice.is_null() {
            return Ok(false);
        }
        let mut len = 0;
        // SAFETY: the slice is the library's until it is destroyed.
        unsafe {
            rocksdb_pinnableslice_value(slice, &raw mut len);
            rocksdb_pinnableslice_destroy(slice);
        }
        Ok(len > 0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: nobody shares it any more.
        unsafe { rocksdb_close(self.database) };
    }
}
