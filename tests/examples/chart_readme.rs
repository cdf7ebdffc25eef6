//! Writes the table of values into the chart's README: `cargo run -p tidings-tests --example chart_readme`.

fn main() -> std::io::Result<()> {
    let (path, text) = tidings_tests::charts::readme();
    std::fs::write(&path, text)?;
    println!("{}", path.display());
    Ok(())
}
