package campaign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// disk is an ext4 filesystem on a loop device. What its image holds is what a disk
// holds: writes that nobody flushed are in the kernel's memory and not there.
type disk struct {
	image string // the backing file
	mount string
	loop  string // the device's name, such as loop3
}

// imageBytes is sparse: only what is written takes room.
const imageBytes = 1 << 30

// formatDisk makes an image. Nothing is left for the kernel to write later on its own.
func formatDisk(ctx context.Context, image string) error {
	if err := hollow(image); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4 (package e2fsprogs): %w: %s", err, out)
	}
	return nil
}

func hollow(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(imageBytes), f.Close())
}

// attach mounts the image. Mounting is where ext4 replays its journal.
func (d *disk) attach() error {
	if err := os.MkdirAll(d.mount, 0o755); err != nil {
		return err
	}
	device, err := loopOver(d.image)
	if err != nil {
		return err
	}
	defer device.Close() // the mount holds the device from here on, and frees it
	if err := unix.Mount(device.Name(), d.mount, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", d.image, err)
	}
	d.loop = filepath.Base(device.Name())
	return nil
}

// detach unmounts it. Those who had files open there have just been killed.
func (d *disk) detach() error {
	if d.loop == "" {
		return nil
	}
	d.loop = ""
	return unmount(d.mount)
}

func unmount(dir string) error {
	for until := time.Now().Add(10 * time.Second); ; pause(5 * time.Millisecond) {
		err := unix.Unmount(dir, 0)
		if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(until) {
			return errors.Join(fmt.Errorf("unmount %s: %w", dir, err), unix.Unmount(dir, unix.MNT_DETACH))
		}
	}
}

// pause waits without hurry, between two looks at something that tells nobody.
func pause(d time.Duration) { <-time.After(d) }

// loopOver gives the image a free loop device, which frees itself when the last user
// closes it. Another program may take the free one first, so that is tried again.
func loopOver(image string) (*os.File, error) {
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := loopNode(n)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		copy(config.Info.File_name[:], image)
		if err = unix.IoctlLoopConfigure(int(device.Fd()), &config); err == nil {
			return device, nil
		}
		_ = device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to %s: %w", image, device.Name(), err)
		}
	}
}

// loopNode opens /dev/loopN and makes it where nobody did, as in a container.
func loopNode(n int) (*os.File, error) {
	path := "/dev/loop" + strconv.Itoa(n)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		if err := unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(7, uint32(n)))); err != nil {
			return nil, fmt.Errorf("make %s: %w", path, err)
		}
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	return f, err
}

// activity is what the kernel has counted on a loop device: with the same counts
// before and after, nothing was written in between.
func (d *disk) activity() (counts string, busy bool, err error) {
	text, err := os.ReadFile("/sys/block/" + d.loop + "/stat")
	if err != nil {
		return "", false, err
	}
	f := strings.Fields(string(text))
	if len(f) < 11 {
		return "", false, fmt.Errorf("/sys/block/%s/stat has %d fields", d.loop, len(f))
	}
	counts = strings.Join(f[4:7], " ") // writes completed, merged, sectors
	if len(f) > 13 {
		counts += " " + strings.Join(f[11:14], " ") // discards
	}
	return counts, f[8] != "0", nil
}

// photograph copies the images of all disks as they are at one moment, each to its
// name with suffix added. Nobody who works on them runs any more, but the kernel may
// still write a journal of its own accord: then it is done again.
func photograph(disks []*disk, suffix string) (tries int, err error) {
	for until := time.Now().Add(time.Minute); time.Now().Before(until); pause(2 * time.Millisecond) {
		before, busy, err := activities(disks)
		if err != nil {
			return tries, err
		}
		if busy {
			continue
		}
		tries++
		for _, d := range disks {
			if err := copySparse(d.image, d.image+suffix); err != nil {
				return tries, err
			}
		}
		after, busy, err := activities(disks)
		if err != nil || !busy && slices.Equal(before, after) {
			return tries, err
		}
	}
	return tries, errors.New("the disks do not come to rest")
}

func activities(disks []*disk) (counts []string, busy bool, err error) {
	for _, d := range disks {
		c, b, err := d.activity()
		if err != nil {
			return nil, false, err
		}
		counts, busy = append(counts, c), busy || b
	}
	return counts, busy, nil
}

// copySparse copies a file and leaves its holes out.
func copySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := hollow(to); err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = copyExtents(src, dst)
	return errors.Join(err, dst.Close())
}

func copyExtents(src, dst *os.File) error {
	for at := int64(0); ; {
		begin, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(src.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, begin), io.NewSectionReader(src, begin, end-begin)); err != nil {
			return err
		}
		at = end
	}
}

// errNotAllowed means that this machine lets nobody, or not us, make a loop device.
var errNotAllowed = errors.New("loop devices are not allowed here")

// probeDisks tries a small round of everything the rig needs of the kernel.
func probeDisks(ctx context.Context, dir string) error {
	d := &disk{image: filepath.Join(dir, "probe.img"), mount: filepath.Join(dir, "probe")}
	defer func() { _ = os.Remove(d.image) }()
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: only root may mount", errNotAllowed)
	}
	if err := formatDisk(ctx, d.image); err != nil {
		return err
	}
	err := d.attach()
	for _, refused := range []error{unix.EPERM, unix.EACCES, unix.ENOENT, unix.ENODEV, unix.ENXIO, unix.ENOSYS, unix.ENOTTY} {
		if errors.Is(err, refused) {
			return fmt.Errorf("%w: %w", errNotAllowed, err)
		}
	}
	if err != nil {
		return err
	}
	return d.detach()
}
