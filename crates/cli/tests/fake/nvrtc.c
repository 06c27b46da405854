// An NVRTC that makes nothing of a text. Environment variables say what is done:
//   FAKE_NVRTC_LOG    a file that gets a line for each text: the thread that asked, and the text's digest
//   FAKE_NVRTC_FAILS  every text is refused
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char PTX[] = ".version 8.0";
static const char LOG[] = "kernel.cu(1): error: no text is good enough\n";

int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
int nvrtcCreateProgram(void **program, const char *text) {
    unsigned long digest = 1469598103934665603;
    for (const char *at = text; *at; at++) digest = (digest ^ (unsigned char)*at) * 1099511628211;
    return *program = (void *)(digest | 1), 0;
}
int nvrtcCompileProgram(void *program) {
    const char *name = getenv("FAKE_NVRTC_LOG");
    if (name) {
        char line[64], thread[16] = "";
        pthread_getname_np(pthread_self(), thread, sizeof thread);
        int length = snprintf(line, sizeof line, "%s %016lx\n", thread, (unsigned long)program);
        // A line that is appended at once is whole.
        int file = open(name, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (file < 0 || write(file, line, length) != length) abort();
        close(file);
    }
    return getenv("FAKE_NVRTC_FAILS") ? 6 : 0;
}
int nvrtcDestroyProgram() { return 0; }
int nvrtcGetPTXSize(void *program, size_t *bytes) { return *bytes = sizeof PTX, 0; }
int nvrtcGetPTX(void *program, char *text) { return memcpy(text, PTX, sizeof PTX), 0; }
int nvrtcGetProgramLogSize(void *program, size_t *bytes) { return *bytes = sizeof LOG, 0; }
int nvrtcGetProgramLog(void *program, char *text) { return memcpy(text, LOG, sizeof LOG), 0; }
const char *nvrtcGetErrorString(int error) { return "an error"; }
