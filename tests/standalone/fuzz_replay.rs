//! Runs the fuzz targets on their seeds and on earlier findings, as ordinary tests.

use std::fs;

use scaikey_auth::testing::fuzz::TARGETS;

#[test]
fn every_target_survives_its_seeds() {
    for (name, target) in TARGETS {
        let folder = format!("tests/fuzz/corpus/{name}");
        let mut seeds = 0;
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder}: {e}")) {
            let seed = entry.unwrap().path();
            target(&fs::read(&seed).unwrap());
            seeds += 1;
        }
        assert!(seeds > 0, "{folder} has no seeds");
    }
}

#[test]
fn every_target_survives_all_truncated_seeds() {
    for (folder, _) in TARGETS {
        for entry in fs::read_dir(format!("tests/fuzz/corpus/{folder}")).unwrap() {
            let seed = fs::read(entry.unwrap().path()).unwrap();
            for length in (0..=seed.len()).step_by(7) {
                TARGETS.iter().for_each(|(_, target)| target(&seed[..length]));
            }
        }
    }
}

#[test]
fn each_target_has_a_fuzzer_binary() {
    let manifest = fs::read_to_string("tests/fuzz/Cargo.toml").unwrap();
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        assert!(fs::exists(format!("tests/fuzz/fuzz_targets/{name}.rs")).unwrap(), "{name}");
    }
}
