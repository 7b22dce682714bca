//! The server under the limits of its process and on the file systems of an operator's bad day: it
//! says what is wrong and what to do.

use std::fs::File;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::client::*;
use crate::server::*;

/// The command of a server, run by a shell that does this first.
fn behind(preparation: &str, server: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{preparation} && exec \"$0\" \"$@\"")]);
    command.arg(server.get_program()).args(server.get_args());
    command
}

/// What a server says that does not start.
fn refusal(mut command: Command) -> String {
    let refused = command.output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    said
}

fn is_skipped() -> bool {
    is_skipped_over_a_database("a database has no files of this process")
}

/// The signal of the limit ended the server without a word; where the signal was ignored, the
/// advice was about permissions.
#[test]
fn a_limit_on_file_sizes_is_said_with_what_to_do() {
    if is_skipped() {
        return;
    }
    for ignored in ["", "trap \"\" XFSZ && "] {
        let home = Home::new();
        // In blocks of 512 bytes.
        let said = refusal(behind(&format!("{ignored}ulimit -f 102400"), &home.command(&[])));
        assert!(said.contains("cannot create logs in "), "{said}");
        let limit = "within the limit of 52428800 bytes for a file (RLIMIT_FSIZE)";
        assert!(said.contains(limit), "{said}");
        assert!(said.contains("134217728 bytes are needed"), "{said}");
        assert!(said.contains("ulimit -f, or LimitFSIZE="), "{said}");
        assert!(!home.store_path().exists(), "nothing is made that would not do");
    }
}

#[tokio::test]
async fn a_journal_at_the_limit_on_file_sizes_ends_a_request_and_not_the_server() {
    if is_skipped() {
        return;
    }
    let home = Home::new();
    let limit: u64 = 512 * 1024 * 1024;
    File::create(home.journal_path()).unwrap().set_len(limit).unwrap();
    let set = format!("ulimit -f {}", limit / 512);
    let server = Server::start(behind(&set, &home.command(&[])));
    for _ in 0..2 {
        assert_eq!(server.place("key", CALL).await.status, 500);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));
}

#[test]
fn a_limit_of_open_files_is_said_with_what_to_do() {
    if is_skipped() {
        return;
    }
    let said = refusal(behind("ulimit -n 12", &Home::new().command(&[])));
    assert!(said.contains("within the limit of 12 open files (RLIMIT_NOFILE)"), "{said}");
    assert!(said.contains("Too many open files"), "{said}");
    assert!(said.contains("ulimit -n, or LimitNOFILE="), "{said}");
}

#[tokio::test]
async fn a_soft_limit_of_open_files_is_raised() {
    let home = Home::new();
    let server = Server::start(behind("ulimit -S -n 12", &home.command(&[])));
    assert_eq!(server.place("key", CALL).await.status, 201);
}

#[test]
fn a_read_only_file_system_is_said_with_what_to_do() {
    if is_skipped() {
        return;
    }
    let home = Home::new();
    std::fs::create_dir(home.store_path()).unwrap();
    let mount = "mount -t tmpfs -o ro none \"$STORE\"";
    let in_namespace = |command: &Command| {
        let mut unshared = Command::new("unshare");
        unshared.args(["--map-root-user", "--mount"]).env("STORE", home.store_path());
        unshared.arg(command.get_program()).args(command.get_args());
        unshared
    };
    if !is_possible(&mut in_namespace(&behind(mount, &Command::new("true")))) {
        return;
    }
    let said = refusal(in_namespace(&behind(mount, &home.command(&[]))));
    assert!(said.contains("on a read-only file system"), "{said}");
    assert!(said.contains("mount the file system for writing"), "{said}");
}

/// Returns true if a command that the system may forbid succeeds.
fn is_possible(command: &mut Command) -> bool {
    let done = command.stdin(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

#[test]
fn a_directory_with_other_files_is_refused_by_their_names() {
    if is_skipped() {
        return;
    }
    let home = Home::new();
    std::fs::create_dir(home.store_path()).unwrap();
    for name in ["notes.txt", "a", "b", "c"] {
        File::create(home.store_path().join(name)).unwrap();
    }
    let said = refusal(home.command(&[]));
    assert!(said.contains("it holds other files, and no LOCK: a, b, c and 1 more"), "{said}");
    assert!(said.contains("name an empty directory"), "{said}");
}

/// The server said that what it had answered was still there. A start in the empty directory then
/// ran all keys again.
#[tokio::test]
async fn a_store_whose_directory_was_removed_is_not_said_to_be_there() {
    if is_skipped() {
        return;
    }
    let home = Home::new();
    let said = home.store_path().with_extension("said");
    let mut command = home.command(&[]);
    command.stderr(File::create(&said).unwrap());
    let server = Server::start(command);
    assert_eq!(server.place("key", CALL).await.status, 201);
    std::fs::remove_dir_all(home.store_path()).unwrap();
    assert_eq!(server.place("another", CALL).await.status, 503);
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(1));
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.contains("its files were removed or replaced while open"), "{said}");
    assert!(said.contains("in an empty one every key runs again"), "{said}");
    assert!(!said.contains("still there"), "{said}");
}
