//! Writes what is made of the definitions: `cargo run -p tidings-crds --example generate`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("there is no workspace")?;
    for (path, text) in tidings_crds::files() {
        let path = workspace.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(workspace))?;
        std::fs::write(&path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}
