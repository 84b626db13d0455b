/*
 * Listens on HOST PORT, says so, and answers each connection with a line, as many real programs do: with neither option,
 * or with what is named after the port: reuseaddr, reuseport. PORT 0 is any. Ends with errno when it cannot.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
	} at = { 0 };
	int six = strchr(argv[1], ':') != NULL, one = 1;
	socklen_t size = six ? sizeof at.six : sizeof at.four;
	int fd = socket(six ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	at.any.sa_family = six ? AF_INET6 : AF_INET;
	inet_pton(at.any.sa_family, argv[1], six ? (void *)&at.six.sin6_addr : (void *)&at.four.sin_addr);
	if (six)
		at.six.sin6_port = htons((unsigned short)atoi(argv[2]));
	else
		at.four.sin_port = htons((unsigned short)atoi(argv[2]));
	for (int i = 3; i < argc; i++)
		setsockopt(fd, SOL_SOCKET, strcmp(argv[i], "reuseport") == 0 ? SO_REUSEPORT : SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, &at.any, size) != 0 || listen(fd, 100) != 0)
		return errno;
	puts("listening");
	fflush(stdout);
	for (int peer; (peer = accept(fd, NULL, NULL)) >= 0; close(peer))
		if (write(peer, "hello\n", 6) != 6)
			return 1;
	return 0;
}
