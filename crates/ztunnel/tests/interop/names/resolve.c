/* Prints the addresses of a host, or the name of an address, as the C library finds them. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct addrinfo hints, *all, *one;
    struct in6_addr v6;
    struct in_addr v4;
    char text[1025];
    if (argc != 2)
        return 2;
    int numeric = inet_pton(AF_INET, argv[1], &v4) == 1 || inet_pton(AF_INET6, argv[1], &v6) == 1;
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = numeric ? AI_NUMERICHOST : 0;
    if (getaddrinfo(argv[1], NULL, &hints, &all) != 0)
        return 1;
    for (one = all; one; one = one->ai_next)
        if (getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof text, NULL, 0, numeric ? NI_NAMEREQD : NI_NUMERICHOST) == 0)
            puts(text);
    freeaddrinfo(all);
    return 0;
}
