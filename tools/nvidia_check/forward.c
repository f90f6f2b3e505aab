/* The C functions that NVIDIA's Python bindings of TensorRT 8.6 to 11 link to, forwarded to the libraries of
   TensorRT-RTX, which build without a GPU. $RTX_LIBRARY and $RTX_PARSER are the paths of the real libraries.
   The bindings pass their own version, which the real library would refuse: it gets its own here. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef void *(*Make)(void *, int);

static void *find(const char *variable, const char *name) {
    const char *path = getenv(variable);
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    void *found = library ? dlsym(library, name) : NULL;
    if (!found) {
        fprintf(stderr, "$%s has no %s: %s\n", variable, name, path ? dlerror() : "it is not set");
        abort();
    }
    return found;
}

static void *in_library(const char *name) { return find("RTX_LIBRARY", name); }

static void *in_parser(const char *name) {
    in_library("getInferLibVersion"); /* the parser needs the library to be loaded */
    return find("RTX_PARSER", name);
}

static int version(void) { return ((int (*)(void))in_library("getInferLibVersion"))(); }

void *createInferBuilder_INTERNAL(void *logger, int ignored) {
    return ((Make)in_library("createInferBuilder_INTERNAL"))(logger, version());
}
void *createInferRuntime_INTERNAL(void *logger, int ignored) {
    return ((Make)in_library("createInferRuntime_INTERNAL"))(logger, version());
}
void *createInferRefitter_INTERNAL(void *engine, void *logger, int ignored) {
    return ((void *(*)(void *, void *, int))in_library("createInferRefitter_INTERNAL"))(engine, logger, version());
}
void *getPluginRegistry(void) { return ((void *(*)(void))in_library("getPluginRegistry"))(); }
void *getBuilderPluginRegistry(int capability) {
    return ((void *(*)(int))in_library("getBuilderPluginRegistry"))(capability);
}
int getNvOnnxParserVersion(void) { return ((int (*)(void))in_parser("getNvOnnxParserVersion"))(); }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int own) {
    return ((void *(*)(void *, void *, int))in_parser("createNvOnnxParser_INTERNAL"))(network, logger, own);
}
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int own) {
    return ((void *(*)(void *, void *, int))in_parser("createNvOnnxParserRefitter_INTERNAL"))(refitter, logger, own);
}
int initLibNvInferPlugins(void *logger, const char *name) { return 1; }

/* The parsers of Caffe and UFF that the bindings of 8.6 link to are not in RTX; nothing here calls them. */
void _ZN11nvuffparser15createUffParserEv(void) { abort(); }
void _ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi(void) { abort(); }
void _ZN14nvcaffeparser117createCaffeParserEv(void) { abort(); }
void _ZN14nvcaffeparser123shutdownProtobufLibraryEv(void) { abort(); }
