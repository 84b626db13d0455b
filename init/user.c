/* --user: who that is, by /etc/passwd and /etc/group read here (no NSS in a static program), and becoming it. */
#include "sexton.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FIELDS 7

typedef bool visit_fn(char *field[FIELDS], void *arg);

static bool visit_line(char *line, visit_fn *visit, void *arg)
{
	char *field[FIELDS] = { line }, *end = line + strlen(line);
	for (int f = 1; f < FIELDS; f++) {
		field[f] = strchrnul(field[f - 1], ':');
		if (field[f] < end)
			*field[f]++ = 0;
	}
	*strchrnul(field[FIELDS - 1], ':') = 0;
	return *line && visit(field, arg);
}

/* Calls visit with the fields of each line of a colon-separated file until it says true; false: none did. */
static bool each_line(const char *path, visit_fn *visit, void *arg)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	char *text = size <= 0 ? MAP_FAILED : mmap(NULL, (size_t)size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool found = false;
	if (text != MAP_FAILED) {
		off_t got = 0;
		for (ssize_t n; got < size && (n = pread(fd, text + got, (size_t)(size - got), got)) > 0;)
			got += n;
		for (char *line = text, *next; line && !found; line = next) {
			next = strchr(line, '\n');
			if (next)
				*next++ = 0;
			found = visit_line(line, visit, arg);
		}
		munmap(text, (size_t)size + 1);
	}
	if (fd >= 0)
		close(fd);
	return found;
}

struct wanted {
	const char *name;
	bool numeric;
	unsigned id;
	struct user *user;
	char login[64];
};

static bool matches(const struct wanted *wanted, char *field[FIELDS])
{
	unsigned id;
	return strcmp(field[0], wanted->name) == 0 || (wanted->numeric && parse_number(field[2], UINT32_MAX - 1, &id) && id == wanted->id);
}

static bool passwd_line(char *field[FIELDS], void *arg)
{
	struct wanted *wanted = arg;
	unsigned uid, gid;
	if (!matches(wanted, field) || !parse_number(field[2], UINT32_MAX - 1, &uid) || !parse_number(field[3], UINT32_MAX - 1, &gid))
		return false;
	wanted->user->uid = uid;
	wanted->user->gid = gid;
	format(wanted->user->home, sizeof wanted->user->home, "%s", *field[5] ? field[5] : "/");
	format(wanted->login, sizeof wanted->login, "%s", field[0]);
	return true;
}

static bool group_line(char *field[FIELDS], void *arg)
{
	struct wanted *wanted = arg;
	unsigned gid;
	if (!matches(wanted, field) || !parse_number(field[2], UINT32_MAX - 1, &gid))
		return false;
	wanted->user->gid = gid;
	return true;
}

static bool member_line(char *field[FIELDS], void *arg)
{
	struct wanted *wanted = arg;
	struct user *user = wanted->user;
	unsigned gid;
	for (char *member = field[3], *next; *member; member = next) {
		next = strchrnul(member, ',');
		if (*next)
			*next++ = 0;
		if (strcmp(member, wanted->login) != 0 || !parse_number(field[2], UINT32_MAX - 1, &gid) || gid == user->gid)
			continue;
		if (user->ngroups == (int)(sizeof user->groups / sizeof *user->groups))
			return true; /* no room: stop */
		user->groups[user->ngroups++] = gid;
	}
	return false;
}

static struct wanted want(const char *name, struct user *user)
{
	struct wanted wanted = { .name = name, .user = user };
	wanted.numeric = parse_number(name, UINT32_MAX - 1, &wanted.id);
	return wanted;
}

const char *user_resolve(const char *spec, struct user *user)
{
	static char name[128];
	const char *colon = strchr(spec, ':');
	size_t len = colon ? (size_t)(colon - spec) : strlen(spec);
	if (*spec == '+' && parse_number(spec + 1, UINT32_MAX - 1, &user->uid)) {
		/* The user id alone: the groups and HOME stay what they are. */
		user->gid = getgid();
		user->set = true;
		return NULL;
	}
	if (len == 0 || len >= sizeof name || (colon && !colon[1]))
		return "is not USER or USER:GROUP";
	memcpy(name, spec, len);
	name[len] = 0;
	struct wanted wanted = want(name, user);
	bool known = each_line("/etc/passwd", passwd_line, &wanted);
	if (!known && !wanted.numeric)
		return "names a user that is not in /etc/passwd";
	if (!known) {
		user->uid = wanted.id;
		strcpy(user->home, "/");
		if (!colon)
			return "is a number that is not in /etc/passwd: name the group too, as USER:GROUP";
	}
	if (colon) {
		struct wanted group = want(colon + 1, user);
		if (!each_line("/etc/group", group_line, &group)) {
			if (!group.numeric)
				return "names a group that is not in /etc/group";
			user->gid = group.id;
		}
	}
	user->groups[0] = user->gid;
	user->ngroups = 1;
	if (!colon && each_line("/etc/group", member_line, &wanted))
		return "is in more than 256 groups; name one, as USER:GROUP";
	user->set = true;
	return NULL;
}

/*
 * In the vforked child: the kernel's own calls, since those of the C library would change our other threads, if we had
 * any. Verified: what was given up must not come back.
 */
bool user_become(const struct user *user)
{
	uid_t ruid, euid, suid;
	gid_t rgid, egid, sgid;
	bool already = getuid() == user->uid && geteuid() == user->uid && getgid() == user->gid && getegid() == user->gid;
	if (user->ngroups && CALL(SYS_setgroups, user->ngroups, user->groups) != 0 && !(already && errno == EPERM))
		return false;
	if (CALL(SYS_setresgid, user->gid, user->gid, user->gid) != 0 || CALL(SYS_setresuid, user->uid, user->uid, user->uid) != 0)
		return false;
	errno = EPERM;
	if (getresuid(&ruid, &euid, &suid) != 0 || getresgid(&rgid, &egid, &sgid) != 0)
		return false;
	if (ruid != user->uid || euid != ruid || suid != ruid || rgid != user->gid || egid != rgid || sgid != rgid)
		return false;
	if (user->uid != 0 && CALL(SYS_setresuid, -1, 0, -1) == 0)
		return false;
	return true;
}
