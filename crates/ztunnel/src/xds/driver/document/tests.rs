use mesh::State;

use super::*;

/// A folder that is gone when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ztunnel-xds-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, file: &str, text: &str) {
        let fresh = self.0.join(".new");
        fs::write(&fresh, text).unwrap();
        fs::rename(fresh, self.0.join(file)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn workload(name: &str) -> String {
    format!("workloads: [{{uid: {name}, name: {name}, namespace: ns, workloadIps: [10.0.0.1], services: {{}}}}]")
}

/// What a mesh knows that is fed from a path.
struct Fed {
    state: State,
    watched: Watched,
}

impl Fed {
    fn new(path: PathBuf) -> Self {
        let source = Source::Path(path);
        let changes = load(&source).unwrap();
        let watched = Watched::new(source, &changes).unwrap();
        let mut state = State::new(None);
        let _ = state.apply(changes);
        Self { state, watched }
    }

    /// How many changes there are to apply; none if the document has none that is valid.
    async fn look(&mut self) -> Option<usize> {
        let changes = self.watched.changes(&self.state.view()).await?;
        let count = changes.len();
        let _ = self.state.apply(changes);
        Some(count)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.state.view().workloads().map(|w| w.name.to_string()).collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_is_loaded_once_and_only_differences_are_applied() {
    let folder = Folder::new("replaced");
    folder.write("state.yaml", &workload("one"));
    let mut fed = Fed::new(folder.0.join("state.yaml"));
    assert_eq!(fed.look().await, None);
    folder.write("state.yaml", &workload("two"));
    assert_eq!((fed.look().await, fed.names()), (Some(2), vec!["two".to_owned()]));
    folder.write("state.yaml", &workload("two"));
    assert_eq!((fed.look().await, fed.look().await), (Some(0), None));
}

#[tokio::test]
async fn a_broken_or_missing_version_keeps_the_state_and_a_good_one_replaces_it() {
    let folder = Folder::new("broken");
    folder.write("state.yaml", &workload("one"));
    let mut fed = Fed::new(folder.0.join("state.yaml"));
    folder.write("state.yaml", "workloads: [{uid: a, nmae: b}]");
    assert_eq!((fed.look().await, fed.names()), (None, vec!["one".to_owned()]));
    fs::remove_file(folder.0.join("state.yaml")).unwrap();
    assert_eq!((fed.look().await, fed.names()), (None, vec!["one".to_owned()]));
    folder.write("state.yaml", &workload("two"));
    assert_eq!((fed.look().await, fed.names()), (Some(2), vec!["two".to_owned()]));
}

#[tokio::test]
async fn symbolic_links_that_kubernetes_swaps_are_seen_in_files_and_folders() {
    let folder = Folder::new("links");
    for version in ["..v1", "..v2"] {
        fs::create_dir(folder.0.join(version)).unwrap();
        fs::write(folder.0.join(version).join("state.yaml"), workload(&version[2..])).unwrap();
    }
    let data = folder.0.join("..data");
    std::os::unix::fs::symlink("..v1", &data).unwrap();
    std::os::unix::fs::symlink("..data/state.yaml", folder.0.join("state.yaml")).unwrap();
    for path in [folder.0.clone(), folder.0.join("state.yaml")] {
        let mut fed = Fed::new(path);
        assert_eq!(fed.names(), ["v1"]);
        std::os::unix::fs::symlink("..v2", folder.0.join("..next")).unwrap();
        fs::rename(folder.0.join("..next"), &data).unwrap();
        assert_eq!((fed.look().await, fed.names()), (Some(2), vec!["v2".to_owned()]));
        std::os::unix::fs::symlink("..v1", folder.0.join("..next")).unwrap();
        fs::rename(folder.0.join("..next"), &data).unwrap();
    }
}

#[tokio::test]
async fn a_folder_is_the_sum_of_its_documents() {
    let folder = Folder::new("folder");
    folder.write("a.yaml", &workload("a"));
    folder.write("b.json", &serde_json::json!({"workloads": []}).to_string());
    folder.write("README.md", "not a document");
    let mut fed = Fed::new(folder.0.clone());
    assert_eq!(fed.names(), ["a"]);
    folder.write("c.yml", &workload("c"));
    assert_eq!((fed.look().await, fed.names()), (Some(1), vec!["a".to_owned(), "c".to_owned()]));
    folder.write("d.yaml", &workload("c"));
    assert_eq!(fed.look().await, None, "two files that speak of the same workload contradict each other");
    let error = load(&Source::Path(folder.0.clone())).unwrap_err().to_string();
    assert!(error.contains("another workload has the same key `c`"), "{error}");
    fs::remove_file(folder.0.join("d.yaml")).unwrap();
    fs::remove_file(folder.0.join("a.yaml")).unwrap();
    assert_eq!((fed.look().await, fed.names()), (Some(1), vec!["c".to_owned()]));
}
