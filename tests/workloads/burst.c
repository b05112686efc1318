/* SPDX-License-Identifier: MIT
 *
 * Stops its parent, works in the kernel for a moment and ends: whoever profiles it comes too late
 * to look at the process.
 */
#include <signal.h>
#include <sys/random.h>
#include <unistd.h>

int main(void)
{
	static char noise[1 << 20];

	kill(getppid(), SIGSTOP);
	for (int i = 0; i < 100; i++)
		if (getrandom(noise, sizeof(noise), 0) < 0)
			return 1;
	return 0;
}
