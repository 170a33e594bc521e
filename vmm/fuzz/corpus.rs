//! Writes the inputs a fuzzer begins with: `corpus/TARGET/N`.

mod seeds;

fn main() -> std::io::Result<()> {
    for (target, inputs) in seeds::all() {
        let directory = std::path::Path::new("corpus").join(target);
        std::fs::create_dir_all(&directory)?;
        for (number, input) in inputs.iter().enumerate() {
            std::fs::write(directory.join(number.to_string()), input)?;
        }
    }
    Ok(())
}
