//! The power-cut file system alone.

#[path = "../powerfs/mod.rs"]
mod powerfs;

fn main() {
    let image = powerfs::image::Image::new(powerfs::image::NameSync::Strict);
    let at = std::env::args().nth(1).unwrap();
    let fs = powerfs::mount::PowerFs::mount(
        image,
        std::path::Path::new(&at),
        std::time::Duration::from_micros(300),
    )
    .unwrap();
    fs.wait_for_cut(std::time::Duration::from_secs(
        std::env::args().nth(2).unwrap().parse().unwrap(),
    ));
    fs.unmount().unwrap();
}
