//! Writes the definitions' YAML: `cargo run -p tidings-crds --example generate`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for definition in tidings_crds::definitions() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(tidings_crds::file_name(&definition));
        std::fs::write(&path, tidings_crds::yaml(&definition))?;
        println!("{}", path.display());
    }
    Ok(())
}
