//! openraft's own suite for log stores and state machines, on ours.

use openraft::testing::{StoreBuilder, Suite};

use super::super::types::StorageError;
use super::*;

struct Folders;

impl StoreBuilder<TypeConfig, LogStore, Machine, tempfile::TempDir> for Folders {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError> {
        let folder = tempfile::tempdir().unwrap();
        let kv = Arc::new(Kv::open(folder.path(), true).unwrap());
        let machine = Machine::new(Core::load(Arc::clone(&kv)).unwrap());
        Ok((folder, LogStore::new(kv), machine))
    }
}

#[test]
fn the_store_keeps_the_contract_of_openraft() {
    Suite::test_all(Folders).unwrap();
}
