//! Tries to break what refrain promises: power cuts, failing disks, kills, rot, and histories against a
//! model.

#![allow(missing_docs, reason = "nobody outside the repository uses it")]

pub mod chance;
pub mod codec;
pub mod content;
pub mod cuts;
pub mod faults;
pub mod histories;
pub mod history;
pub mod kill;
pub mod lane;
pub mod machine;
pub mod model;
pub mod platter;
pub mod rot;
pub mod step;
pub mod trial;
